// The page of the Labeller: asks about one image after the other, sends each answer with its image index and the seconds it took.
// The clock of an image runs while at least half of it is on the screen in a visible tab. It starts only once the widget has
// been focused, touched or pointed at, so that time spent reading the notebook does not count.

const MOST_BUTTONS = 60; // further classes are reached through the search field
const SAVED = "The kernel is busy or has stopped. If it was restarted, run this cell again; all your answers are saved.";
const CHART_HEIGHT = 270;

const sameQuestion = (one, other) => one.index === other.index && one.events === other.events;
const signed = (v) => (v >= 0.05 ? "+" : v <= -0.05 ? "−" : "") + Math.abs(v).toFixed(1);
const shortTime = (seconds) => seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;

function render({ model, el }) {
  const names = model.get("view").classnames, digits = names.every((name) => /^[0-9]$/.test(name)), searching = names.length > 10;
  const numbered = !searching || !names.some((name) => /[0-9]/.test(name)); // else digits are typed to filter, as in "747-400"
  const keys = [
    ...(numbered ? [["0-9", digits ? "the digit that you see" : "the class with that key"]] : []),
    ...(searching ? [[numbered ? "letters" : "letters, digits", "filter the classes"], ["Enter", "the only class that is left, or the one of exactly that name"]] : []),
    [searching ? "→" : "s, space, →", "skip: the image comes again at the end of the query"],
    [searching ? "←, Backspace" : "u, Backspace, ←", "undo the last answer of this query"],
    ...(searching ? [["Esc", "clear the filter"]] : []),
  ];
  const hands = searching ? `type: filter · ${numbered ? "digit or " : ""}Enter: answer · →: skip · ←: undo` : "digit key or click: answer · s: skip · u: undo";
  const S = shell({ model, el, name: "labeller", title: "Label it yourself", hands, keys, silent: SAVED, patience: 4000 });
  S.root.tabIndex = 0;
  const left = S.side(0, 430), right = S.side(1, 280);
  left.classList.add("akd-ask");
  const desk = make("div", "desk", left), end = make("div", "end", left, { hidden: true, tabIndex: 0, "role": "region", "aria-label": "summary" });
  const game = curves(S, right), ask = question(S, desk, { names, digits, searching, numbered });
  const summary = closing(S, end);
  S.listen(model, "change:view", show);
  show();

  function show() {
    const view = model.get("view");
    desk.hidden = !!view.summary;
    end.hidden = !view.summary;
    S.root.setAttribute("aria-busy", String(!!view.busy));
    ask.show(view);
    game.show(view);
    summary.show(view);
    S.status(view.error || view.status || "", view.error ? "error" : "");
  }
  return S.close;
}

// The image, its clock, the classes, and what the keys do.
function question(S, parent, { names, digits, searching, numbered }) {
  let shown = {}, locked = false, places = []; // places: class positions of the buttons, in order
  let spent = 0, since = null; // milliseconds spent on this image, and when its clock last started
  let drawn = false, onScreen = false, begun = false; // conditions of the clock: image decoded, in view, widget in use

  make("h3", "question", parent, { textContent: S.view("question") });
  const pictures = make("div", "pictures", parent), image = picture("its pixels"), smooth = picture("smoothed");
  const waiting = make("span", "waiting", pictures, { textContent: "Your student is being trained ..." });
  const clock = make("p", "clock", parent, { role: "timer" });
  const progress = make("p", "task", parent, { role: "status" });
  const done = make("progress", "given", parent, { "aria-label": "labels given" });
  const search = searching ? make("input", "search", parent, { type: "text", placeholder: "Type to filter the classes", "aria-label": "filter the classes" }) : null;
  const classes = make("div", "classes" + (digits ? " akd-digits" : ""), parent, { role: "group", "aria-label": "classes" });
  const tools = make("div", "answer-tools", parent);
  const skip = tool("Skip", searching ? "→" : "s", () => send("skip")), undo = tool("Undo", searching ? "←" : "u", () => shown.undo && send("undo"));
  make("span", "hint", tools, { textContent: "Click here to use the keys" });
  const feedback = make("p", "feedback", make("div", "feedback-room", parent), { "aria-live": "polite" });

  function picture(caption) {
    const figure = make("figure", "look", pictures), img = make("img", "", figure);
    make("figcaption", "", figure, { textContent: caption });
    return img;
  }

  function tool(text, key, action) {
    const button = S.button("", action, { parent: tools }).element;
    make("kbd", "", button, { textContent: key });
    button.append(" " + text);
    return button;
  }

  const keyOf = (row, place) => digits ? names[place] : numbered && row < 10 ? String((row + 1) % 10) : "";

  function filter() {
    const wanted = (search?.value || "").trim().toLowerCase();
    const all = names.map((_, place) => place).filter((place) => names[place].toLowerCase().includes(wanted));
    places = all.slice(0, MOST_BUTTONS);
    classes.replaceChildren();
    places.forEach((place, row) => {
      const button = S.button("", () => answer(place), { parent: classes }).element, key = keyOf(row, place);
      button.dataset.label = place;
      if (digits) button.textContent = key;
      else {
        if (key) make("kbd", "", button, { textContent: key });
        button.append(" " + names[place]);
      }
    });
    if (all.length > places.length) make("span", "", classes, { textContent: `and ${all.length - places.length} more` });
    if (!all.length) make("span", "", classes, { textContent: "no class matches" });
    enable();
  }

  function enable() {
    const open = shown.index >= 0;
    for (const button of [...classes.querySelectorAll("button"), skip]) button.setAttribute("aria-disabled", String(!open));
    undo.setAttribute("aria-disabled", String(!(open && shown.undo)));
  }

  const answer = (place) => send("answer", { label: place });

  function send(kind, more = {}) {
    if (locked || !(shown.index >= 0)) return;
    locked = true; // until the kernel updates the view
    setClock();
    S.send(kind, { index: shown.index, seconds: spent / 1000, ...more });
    if (search?.value) {
      search.value = "";
      filter();
    }
  }

  function setClock() {
    const runs = drawn && onScreen && begun && !locked && !document.hidden, now = performance.now();
    if (since !== null) spent += now - since;
    since = runs ? now : null;
    tell();
  }

  function tell() {
    const now = spent + (since === null ? 0 : performance.now() - since), total = (shown.seconds || 0) + now / 1000;
    const open = shown.index >= 0, image = begun ? `this image ${shortTime(now / 1000)}` : "the clock starts with your first move here";
    clock.textContent = [open && image, total && `all images ${shortTime(total)}`].filter(Boolean).join(" · ");
  }

  function begin() {
    if (begun) return;
    begun = true;
    setClock();
  }

  function show(view) {
    const before = shown;
    shown = view;
    locked = false;
    progress.textContent = shown.title || "";
    [done.value, done.max] = shown.given || [0, 1];
    feedback.textContent = shown.feedback || "";
    const open = shown.index >= 0;
    waiting.hidden = !shown.busy;
    enable();
    if (sameQuestion(before, shown)) return setClock(); // same question: its clock keeps running
    drawn = false;
    setClock();
    spent = 0;
    tell();
    image.parentElement.hidden = !open;
    smooth.parentElement.hidden = !open || !shown.smooth;
    if (!open) return image.removeAttribute("src");
    image.alt = `image ${shown.index} of the pool`;
    smooth.alt = "the same image, smoothed";
    image.nextSibling.hidden = !shown.smooth; // a single picture needs no name
    image.src = shown.image;
    if (shown.smooth) smooth.src = shown.smooth;
    const asked = shown;
    image.decode().catch(() => {}).then(() => requestAnimationFrame(() => {
      if (!sameQuestion(asked, shown)) return;
      drawn = true;
      setClock();
    }));
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.target.closest("[role=dialog]")) return;
    const { key } = event, typing = event.target === search, empty = !search || search.value === "";
    const onButton = event.target.tagName === "BUTTON";
    let action = null;
    if (numbered && /^[0-9]$/.test(key)) {
      const place = places.find((at, row) => keyOf(row, at) === key);
      action = () => place !== undefined && answer(place);
    } else if (onButton && (key === " " || key === "Enter")) {
      return; // handled by the button
    } else if (searching && key === "Enter") {
      const same = places.find((at) => names[at].toLowerCase() === search.value.trim().toLowerCase());
      action = () => places.length === 1 ? answer(places[0]) : same !== undefined && answer(same);
    } else if (empty && (key === "ArrowLeft" || key === "Backspace" || (!searching && key.toLowerCase() === "u"))) {
      action = () => shown.undo && send("undo");
    } else if (empty && (key === "ArrowRight" || (!searching && (key === " " || key.toLowerCase() === "s")))) {
      action = () => send("skip");
    } else if (searching && key === "Escape") {
      action = () => { search.value = ""; filter(); };
    } else if (searching && !typing && key.length === 1 && key !== " " && key !== "?") {
      search.focus(); // the letter is typed there
    }
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) action(); // a key held down answers once
  }

  function click(event) {
    const elsewhere = !event.target.closest("button, input, .akd-end, .akd-card");
    const answered = event.detail && event.target.closest("button") && event.composedPath().includes(parent); // by mouse; it may be gone
    if (elsewhere || answered) (touched || !search ? S.root : search).focus({ preventScroll: true });
  }

  const screen = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).intersectionRatio >= 0.5;
    setClock();
  }, { threshold: 0.5 });
  screen.observe(image);
  const ticking = setInterval(tell, 200);
  let touched = false; // by finger: the search field would open the screen's keyboard
  S.listen(S.root, "pointerdown", (event) => { touched = event.pointerType === "touch"; });
  for (const sign of ["focusin", "pointerdown", "pointermove"]) S.listen(S.root, sign, begin);
  S.listen(S.root, "keydown", press);
  S.listen(S.root, "click", click);
  if (search) S.listen(search, "input", filter);
  S.listen(document, "visibilitychange", setClock);
  S.cleanup(() => { clearInterval(ticking); screen.disconnect(); });
  filter();
  return { show };
}

// The learning curves, a table of them, and the images labelled last.
function curves(S, parent) {
  make("h3", "", parent, { textContent: "Test accuracy of the student" });
  const note = make("p", "note", parent);
  const plot = make("div", "plot", parent), counts = S.view("counts");
  const drawn = chart(S, plot, { height: CHART_HEIGHT, x: "labels", y: "accuracy (%)", xRange: counts });
  const legend = S.legend([], { onFilter: () => draw(lines) });
  const table = make("div", "rounds", parent, { tabIndex: 0, role: "region", "aria-label": "accuracy after each round" });
  const last = make("h3", "", parent, { textContent: "Labelled last" }), recent = make("div", "recent", parent);
  let lines = [], rules = [], told = "", pictures = "";

  // The person's line comes first, and is drawn last, above the others.
  const draw = (now) => drawn.set({ lines: now.filter((line) => !legend.hidden.has(line.name)).reverse(), rules, yRange: accuracyRange(lines, rules) });

  // A new point grows out of the one before it.
  function grow(next) {
    const before = new Map(lines.map((line) => [line.name, line.xs.length]));
    lines = next;
    const grown = new Set(next.filter((l) => l.xs.length > 1 && before.get(l.name) === l.xs.length - 1).map((l) => l.name));
    if (!grown.size) return draw(lines);
    S.animate(700, (t) => draw(next.map((l) => t < 1 && grown.has(l.name) ? { ...l, xs: between(l.xs, t), ys: between(l.ys, t) } : l)));
  }

  function show(view) {
    const now = JSON.stringify([view.lines, view.rules]), shownLast = view.summary ? [] : view.recent || [];
    const tilesNow = JSON.stringify(shownLast.map((t) => [t.index, t.caption]));
    if (now !== told) {
      told = now;
      rules = view.rules || [];
      note.textContent = rulesNote(rules);
      legend.set((view.lines || []).map((line) => ({ key: line.name, name: line.label || line.name, look: [S.theme[line.colour] || line.colour, line.marker] })));
      grow(view.lines || []);
      writeRounds(table, view.rounds || []);
    }
    if (tilesNow === pictures) return;
    pictures = tilesNow;
    last.hidden = !shownLast.length;
    tiles(S, recent, shownLast, { side: 40 });
  }
  return { show };
}

function writeRounds(parent, rounds) {
  parent.replaceChildren();
  parent.hidden = !rounds.length;
  if (!rounds.length) return;
  const runs = Object.keys(rounds[0].accuracy);
  const rows = rounds.map((r) => [`round ${r.round}`, `${r.labels}`, ...runs.map((name) => r.accuracy[name] === undefined ? "" : r.accuracy[name].toFixed(1))]);
  writeTable(parent, "", ["", "your labels", ...runs], rows);
}

function writeTable(parent, caption, head, rows) {
  const table = make("table", "table", parent);
  if (caption) make("caption", "", table, { textContent: caption });
  const top = make("tr", "", make("thead", "", table)), body = make("tbody", "", table);
  for (const text of head) make(text ? "th" : "td", "", top, { textContent: text, ...(text ? { scope: "col" } : {}) });
  for (const cells of rows) {
    const row = make("tr", "", body);
    cells.forEach((text, k) => make(k ? "td" : "th", "", row, { textContent: text, ...(k ? {} : { scope: "row" }) }));
  }
  return table;
}

// What the run has shown, once all labels are given.
function closing(S, parent) {
  let told = "";
  const GROUPS = [
    ["corrected", "only you are right"],
    ["missed", "only the teacher is right"],
    ["neither", "both are wrong, and differ"],
    ["open", "the teacher disagrees with your label"],
  ];

  function show({ summary }) {
    const now = JSON.stringify(summary || null);
    if (now === told) return;
    told = now;
    parent.replaceChildren();
    if (!summary) return;
    const { words, standings, confusions, teacher } = summary;
    make("p", "score", parent, { textContent: words.pace });
    make("p", "", parent, { textContent: words.gain });
    const rows = standings.map((r) => [r.run, r.accuracy_pct.toFixed(1), ...[r.gained_pct, r.gained_per_minute].map((v) => v === null ? "" : signed(v))]);
    writeTable(parent, "What the labels gained", ["", "accuracy (%)", "points gained", "per minute"], rows);
    if (standings.length > 1) make("p", "note", parent, { textContent: "All have the same number of labels; per minute, the others are taken to label at your pace." });
    if (words.labels) {
      make("h3", "", parent, { textContent: words.labels });
      const row = make("div", "groups-of", parent);
      for (const { true: truth, label, tiles: wrong } of confusions) group(row, `${truth} labelled ${label}`, wrong);
    }
    if (words.teacher) {
      make("h3", "", parent, { textContent: words.teacher });
      const row = make("div", "groups-of", parent);
      for (const [key, title] of GROUPS) if (teacher[key]?.length) group(row, title, teacher[key]);
    }
  }

  function group(row, title, entries) {
    const box = make("div", "group-of", row);
    make("span", "", box, { textContent: title });
    tiles(S, make("div", "", box), entries, { side: 40 });
  }
  return { show };
}

export default { render };
