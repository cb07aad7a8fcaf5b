// PCoreSetStepper: the farthest image, its distance, the pick, the radius that drops; beside it another strategy or the learner.
function render({ model, el }) {
  const S = shell({
    model, el, name: "stepper", title: "PCoreSet, pick by pick",
    hands: "space: next pick · P: play · hover: pictures · pick yourself: click images",
    fingers: "next: next pick · tap: picture · pick yourself: tap images · two fingers: zoom",
    keys: [["space, →", "next pick"], ["←", "previous pick"], ["Home, End", "first and last step"], ["P", "play or pause"], ["U", "take back your last pick"],
      ["click, Enter", "pick the image under the mouse or the ring (with “pick yourself”)"],
      ["arrows", "in a panel: go to the neighbour in that direction"], ["wheel, + −", "zoom, when the panel was clicked; 0 shows all"], ...FINGERS],
  });
  const budget = S.view("budget"), largest = S.view("largest"), unit = S.view("steps"), looks = S.view("looks");
  const start = S.view("start"), xy = S.array("xy"), range = wider(around(xy), 1.1), count = xy.length / 2, band = S.view("band"), moving = !S.calm && count <= DENSE;
  let at = S.view("at"), awaited = null, timer = null, pulse = 0;
  const path = (name) => S.view("paths")[name], yours = () => S.view("yours"), mine = () => path("you") || { picks: [], radii: [], why: [], nearest: [] };
  const beside = () => (yours() ? "you" : S.view("beside"));

  // Controls.
  const back = S.button("back", () => go(at - 1), { icon: "◂", title: "previous pick" });
  const play = S.button("play", () => (timer ? pause() : begin()), { icon: "▶", title: "play the picks one after the other", pressed: false });
  const next = S.button("next", () => go(at + 1), { icon: "▸", title: "next pick" });
  const slider = S.slider("picks", { max: budget, value: at, text: (v) => `${v} of ${budget}` }, (v) => go(v));
  const menu = S.select("compare with", S.view("others"), S.view("beside"), (name) => { S.send("beside", { name }); });
  const self = S.button("pick yourself", () => S.send("yours", { shown: !yours() }), { pressed: yours(), title: "pick images on the right by clicking them" });
  const undo = S.button("undo", () => S.send("undo"), { title: "take back your last pick" });
  const clear = S.button("clear", () => S.send("clear"), { title: "take back all your picks" });

  // Left and right: map, sentence, pictures. Then the curves.
  const L = linked(S, { count, caption });
  const sides = ["left", "right"].map((place) => {
    const column = S.side(3, 270);
    column.classList.add(`akd-step-${place}`);
    column.setAttribute("role", "group");
    const panel = L.panel(column, { height: 320 }), why = make("p", "why", column), strip = make("div", "strip", column);
    return { column, panel, why, next: make("div", "next", strip), done: make("div", "done", strip) };
  });
  const [left, right] = sides, curves = S.side(3, 260);
  make("div", "title", curves, { textContent: "distance of the farthest image" });
  const graph = chart(S, make("div", "", curves), { height: 320, x: "picks", y: "covering radius", zero: true, xRange: [0, budget], yRange: [0, 1.06 * largest], lines: [] });
  const ranking = make("div", "ranking", curves);

  const key = S.legend([], { onFilter: (hidden) => L.hidden(new Set(looks.keys().filter((shade) => hidden.has(shade - shade % band)))) });
  const tables = {};

  // Distances after `made` picks, as shades; `t` of the way from the pick before.
  const rows = (place) => tables[place].length / count;
  const row = (place, made) => tables[place].subarray(count * Math.min(made, rows(place) - 1), count * (Math.min(made, rows(place) - 1) + 1));
  function shades(place, t) {
    const now = row(place, at), before = t < 1 ? row(place, at - 1) : now, found = new Int16Array(count), scale = looks.length / (largest * unit);
    for (let i = 0; i < count; i++) found[i] = Math.min(looks.length - 1, (before[i] + t * (now[i] - before[i])) * scale);
    return found;
  }
  function caption(i) {
    const said = [["pcoreset", "left"], [beside(), "right"]].map(([name, place]) => `${name} ${(row(place, at)[i] / unit).toFixed(2)}`);
    return `image ${i}, distance: ${said.join(", ")}`;
  }

  function draw(t = 1) {
    [["left", "pcoreset", left], ["right", beside(), right]].forEach(([place, name, side]) => drawSide(place, name, side, t));
    drawCurves(t);
  }
  function drawSide(place, name, side, t) {
    const own = name === "you", { picks, nearest, radii, why, gaps } = own ? mine() : path(name), made = own ? picks.length : at;
    const following = !own && made < picks.length && !(yours() && place === "left") && t === 1 ? picks[made] : -1;
    const marks = start.map((index) => ({ index, kind: "start" }));
    picks.slice(0, made).forEach((index, k) => marks.push({ index, kind: own ? "own" : "pick", text: k >= made - 9 || made <= 12 ? String(k + 1) : undefined }));
    if (following >= 0) marks.push({ index: following, kind: "next" });
    const radius = made < radii.length ? radii[made] : path("pcoreset").radii[0], title = `${name}: ${made} of ${plural(budget, "pick")}, radius ${radius.toFixed(2)}`;
    const over = (c, to) => following >= 0 && reach(c, to, following, nearest[made], gaps[made]);
    side.panel.set({ xy, range, groups: shades(place, t), looks, marks, over, title, label: `map of ${title}`, onPoint: own ? (i) => (S.send("pick", { index: i }), true) : null });
    side.panel.draw();
    if (t < 1) return;
    side.column.setAttribute("aria-label", name);
    side.why.textContent = own ? why[made] || S.view("score") : following >= 0 || made === picks.length ? `${made < picks.length ? "next: " : ""}${why[made]}` : "";
    tiles(S, side.next, following >= 0 ? [{ index: following, caption: "next" }, { index: nearest[made], caption: "nearest" }] : [], { side: 48 });
    tiles(S, side.done, picks.slice(0, made).map((index, k) => ({ index, caption: String(k + 1) })).reverse(), { side: 32, most: following >= 0 ? 4 : 7, onClick: (i) => L.hover(i) });
  }

  // From the next pick to its nearest labelled image, with a ring that flashes.
  function reach(c, to, from, near, distance) {
    const [x0, y0] = to(xy[2 * from], xy[2 * from + 1]), [x1, y1] = to(xy[2 * near], xy[2 * near + 1]), grown = pulse ? Math.min(1, 2 * pulse) : 1;
    const long = Math.hypot(x1 - x0, y1 - y0) || 1, [u, v] = [(x1 - x0) / long, (y1 - y0) / long], end = Math.max(13, grown * (long - 7));
    for (const [width, colour] of [[5, S.theme.paper], [2.5, S.theme.hot]]) {
      c.beginPath();
      c.lineWidth = width;
      c.strokeStyle = colour;
      c.moveTo(x0 + 13 * u, y0 + 13 * v);
      c.lineTo(x0 + end * u, y0 + end * v);
      c.stroke();
    }
    c.beginPath();
    c.arc(x0, y0, 13 + 14 * (pulse ? Math.abs(Math.sin(3 * Math.PI * pulse)) : 0), 0, 7);
    c.stroke();
    c.font = "bold 14px Helvetica, Arial, sans-serif";
    left.panel.text(c, distance.toFixed(2), (x0 + x1) / 2 + 6, (y0 + y1) / 2 - 6);
  }

  function drawCurves(t) {
    const paths = S.view("paths"), strategies = [...new Set(["pcoreset", S.view("beside"), ...(yours() ? ["random"] : [])])].filter((name) => paths[name]);
    const lines = strategies.map((name, k) => {
      const { radii } = paths[name], xs = [...Array(at + 1).keys()], ys = radii.slice(0, at + 1), look = [["#0072B2", "circle"], ["#D55E00", "square"], ["#CC79A7", "triangle-up"]][k];
      if (t < 1) { xs[at] = at - 1 + t; ys[at] = radii[at - 1] + t * (radii[at] - radii[at - 1]); }
      return { name, colour: look[0], marker: look[1], xs, ys, dash: k > 0 };
    });
    const { radii } = mine();
    if (mine().picks.length) lines.push({ name: "you", colour: "good", marker: "diamond", xs: [...radii.keys()], ys: radii });
    graph.set({ lines, at: t < 1 ? at - 1 + t : at });
    if (t === 1) rank(lines);
  }

  // The radii after the same number of picks, the smallest first.
  function rank(lines) {
    const made = yours() ? mine().picks.length : at, paths = S.view("paths"), sorted = [];
    for (const { name, colour, marker } of lines) if (made < paths[name].radii.length) sorted.push([paths[name].radii[made], name, [colour, marker]]);
    sorted.sort((a, b) => a[0] - b[0]);
    ranking.replaceChildren(make("b", "", null, { textContent: `after ${plural(made, "pick")}` }));
    for (const [radius, name, look] of sorted) {
      const line = make("div", "", ranking);
      line.append(swatch(look, S), `${radius.toFixed(2)} ${name}`);
    }
  }

  // Steps: forward by one, the colour drains and the radius drops; then the next pick flashes.
  function go(to) {
    to = Math.min(Math.max(0, to), budget);
    const forward = to === at + 1;
    if (to === at) return;
    at = awaited = to;
    S.send("step", { to });
    show(forward);
  }
  function show(forward) {
    slider.set(at);
    back.enable(at > 0);
    next.enable(at < budget);
    pulse = 0;
    cancelAnimationFrame(S.frame);
    if (!moving || !forward) return draw(1);
    S.animate(500, (t) => draw(t), flash);
  }
  function flash() {
    draw(1);
    S.animate(900, (t) => { pulse = t; sides.forEach(({ panel }) => panel.draw()); }, () => { pulse = 0; sides.forEach(({ panel }) => panel.draw()); });
  }
  const begin = () => {
    if (at === budget) go(0);
    timer = setInterval(() => { go(at + 1); if (at === budget) pause(); }, 1800);
    play.press(true);
    play.text("⏸ pause");
    if (at < budget) go(at + 1);
  };
  function pause() {
    clearInterval(timer);
    timer = null;
    play.press(false);
    play.text("▶ play");
  }
  S.cleanup(() => clearInterval(timer));

  // The legend: bands of distances, which can be hidden, and the marks.
  function entries(on) {
    const found = [], step = largest / looks.length, group = "distance to nearest label";
    for (let low = 0; low < looks.length; low += band)
      found.push({ key: low, group, name: `${(low * step).toFixed(2)} to ${((low + band) * step).toFixed(2)}`, look: looks[low + (band >> 1)] });
    const marks = [["start", "start"], ["pick", "pick"], on ? ["your pick", "own"] : ["next pick", "next"]];
    return [...found, ...marks.map(([name, kind]) => ({ key: kind, name, look: MARKS[kind], fixed: true }))];
  }

  S.on(["paths", "beside", "yours", "score", "ours", "other", "mine"], () => {
    const on = yours(), made = mine().picks.length;
    Object.assign(tables, { left: S.array("ours", Int16Array), right: S.array(on ? "mine" : "other", Int16Array) });
    menu.set(null, S.view("beside"));
    self.press(on);
    undo.element.hidden = clear.element.hidden = !on;
    undo.enable(made > 0);
    clear.enable(made > 0);
    key.set(entries(on));
    if (on && at !== made) go(made);
    else draw(1);
  });
  S.on("at", () => {
    const told = S.view("at");
    if (awaited !== null) { if (told === awaited) awaited = null; return; } // an answer to an earlier step
    if (told !== at) { at = told; show(false); }
  });
  S.key(" ", () => go(at + 1));
  S.key("ArrowRight", () => go(at + 1));
  S.key("ArrowLeft", () => go(at - 1));
  S.key("Home", () => go(0));
  S.key("End", () => go(budget));
  S.key("p", () => (timer ? pause() : begin()));
  S.key("u", () => yours() && S.send("undo"));
  S.onReset(() => { pause(); go(0); S.send("reset"); key.clear(); L.reset(); });
  S.onTheme(() => draw(1));
  requestAnimationFrame(() => moving && flash());
  return S.close;
}

function wider({ x, y }, by) {
  const grown = ([low, high]) => [(low + high) / 2 - by * (high - low) / 2, (low + high) / 2 + by * (high - low) / 2];
  return { x: grown(x), y: grown(y) };
}

export default { render };
