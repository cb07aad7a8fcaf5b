// SimplexExplorer: the triangle of three classes beside a map; a card of the image under the mouse; the selection by answer.
function render({ model, el }) {
  const S = shell({
    model, el, name: "simplex", title: "Probability space",
    hands: "drag: lasso · click, then wheel: zoom · arrows: neighbours · click a corner: other classes",
    fingers: "tap: select · hold, then drag: lasso · two fingers: zoom · tap a corner: other classes",
    keys: [["drag", "select with a lasso; with Shift, add to the selection"], ["click", "select one image"],
      ["wheel, + −", "zoom, when the panel was clicked; drag with the right button to move; 0 shows all"],
      ["← ↑ → ↓", "go to the neighbour in that direction"], ["space", "select or drop the ringed image"], ["Esc", "clear the selection"], ...FINGERS],
  });
  const count = S.view("size");
  const L = linked(S, { count, caption: (i) => `image ${i}` });
  const choose = (fields) => S.send("choose", fields), several = S.view("sources").length > 1;

  const source = several && S.select("answers", S.view("sources"), S.view("source"), (v) => choose({ source: v }));
  const share = several && S.slider("→", { min: 0, max: 1, step: 0.02, value: 0, text: (v) => percent(v) }, place);
  const beside = several && S.select("", S.view("sources"), S.view("beside"), (v) => choose({ beside: v }));
  if (several) {
    share.input.setAttribute("aria-label", "from the first to the second set of answers");
    beside.element.querySelector("select").setAttribute("aria-label", "answers to compare with");
  }
  const colour = S.select("colour", S.view("colourings"), S.view("colour"), (v) => choose({ colour: v }));
  const map = S.select("map", S.view("layouts"), S.view("layout"), (v) => choose({ map: v }));
  const find = S.field("find class", { placeholder: "a class name", width: "150px", type: "search" }, null, { onDone: (v) => v && S.send("find", { name: v }) });
  const names = make("datalist", "", find.element, { id: `akd-classes-${Math.random().toString(36).slice(2)}` });
  find.input.setAttribute("list", names.id);
  names.append(...S.view("classnames").map((name) => make("option", "", null, { value: name })));
  const typed = S.field("images", { placeholder: "3, 17, 101", width: "100px" }, null, { onDone: (v) => S.send("typed", { text: v }) });
  typed.input.setAttribute("aria-label", "select images by number");

  const left = L.panel(S.side(3, 280), { height: 400, label: "triangle of three classes" });
  const right = L.panel(S.side(3, 280), { height: 400, label: "map of the same images" });
  const detail = S.side(2, 240), card = make("div", "detail", detail), selection = make("div", "selection", detail);
  detail.classList.add("akd-facts");
  Object.assign(selection, { tabIndex: 0, role: "group", ariaLabel: "selected images by answer" });
  const corners = addCorners(S, left);
  const key = S.legend(S.view("legend"), { onFilter: (hidden) => L.hidden(hidden) });
  let from = null, to = null;

  // Points move in the page between the two sets of answers.
  function place() {
    const t = several ? +share.input.value : 0, xy = !t ? from : t === 1 ? to : from.map((v, k) => (1 - t) * v + t * to[k]);
    const chosen = t && L.some ? indicesOf(L.chosen, 300) || [] : [];
    const arrows = chosen.map((i) => [from[2 * i], from[2 * i + 1], xy[2 * i], xy[2 * i + 1]]).filter(([x]) => x === x);
    const [a, b] = [S.view("source"), S.view("beside")];
    left.set({ xy, arrows, title: !t || a === b ? a : t === 1 ? b : `${a} → ${b}, ${percent(t)}` });
    left.draw();
    told();
  }

  function told() {
    const t = several ? +share.input.value : 0, [a, b] = [S.view("source"), S.view("beside")], { xy } = left.o;
    const moved = t > 0 && a !== b && xy.filter((v, k) => k % 2 === 0 && v === v).length.toLocaleString("en");
    if (moved && !S.view("error")) S.status(t === 1 ? `Left: ${moved} images, according to ${b}.` : `Left: ${moved} images that are in the triangle according to both ${a} and ${b}.`);
    else if (!S.view("error")) S.status(S.view("status"));
  }

  S.on(["start", "end", "groups", "looks", "labels", "source", "beside"], () => {
    [from, to] = [S.array("start"), S.array("end")];
    const shared = { groups: S.array("groups", Int16Array), looks: S.view("looks") };
    left.set({ ...shared, range: S.view("range"), lines: S.view("lines"), label: `triangle of ${S.view("corners").join(", ")}` });
    right.set({ ...shared });
    place();
  });
  S.on(["map", "layout"], () => { right.set({ xy: S.array("map"), title: S.view("layout"), label: `map of the same images: ${S.view("layout")}` }); });
  S.on("legend", () => { key.set(S.view("legend")); L.hidden(key.hidden); });
  S.on(["source", "beside", "colour", "layout"], () => {
    source && source.set(null, S.view("source"));
    beside && beside.set(null, S.view("beside"));
    colour.set(null, S.view("colour"));
    map.set(null, S.view("layout"));
  });
  S.on(["corners", "suggestions"], corners);

  S.on("card", () => {
    const shown = S.view("card");
    if (!shown) return void card.replaceChildren(make("p", "", null, { textContent: "Point at an image, or walk with the arrow keys." }));
    const { index, truth, answers } = shown, head = make("div", "detail-head");
    const picture = make("img", "", head, { width: 96, height: 96, alt: `image ${index}` }), words = make("div", "", head);
    S.picture(index).then((src) => { picture.src = src; });
    make("b", "", words, { textContent: `image ${index}` });
    if (truth !== null) make("div", "", words, { textContent: `true label: ${truth}` });
    card.replaceChildren(head);
    const columns = make("div", "answers", card);
    for (const [name, best] of answers) {
      const column = make("div", "", columns);
      make("h3", "", column, { textContent: name });
      bars(make("div", "", column), best);
    }
  });
  S.on(["selection", "selected"], () => {
    const rows = S.view("selection"), shown = S.view("selected");
    selection.replaceChildren(make("h3", "", null, { textContent: shown ? `${shown.toLocaleString("en")} selected, by answer` : "" }));
    for (const { name, count: size, images } of rows) {
      make("div", "", selection, { textContent: `${name}: ${size.toLocaleString("en")}` });
      tiles(S, make("div", "", selection), images.map((index) => ({ index })), { side: 32, most: rows.length > 3 ? 6 : 18, total: size, onClick: (i) => { L.hover(i); } });
    }
    several && +share.input.value ? place() : told(); // the arrows of the selected points
  });
  S.onReset(() => {
    if (several) share.set(0);
    [find, typed].forEach((field) => field.set(""));
    S.send("reset");
    key.clear();
    L.reset();
    place();
  });
  return S.close;
}

// A button at each corner of the triangle; it opens a list of classes, the most confused first.
function addCorners(S, panel) {
  const buttons = [0, 1, 2].map((k) => S.button("", () => open(k), { title: "choose the class of this corner" }));
  const list = make("div", "card akd-corner-list", S.root, { hidden: true, role: "dialog", "aria-label": "class of the corner" });
  let at = 0;
  buttons.forEach(({ element }, k) => {
    element.classList.add("akd-corner", `akd-corner-${k}`);
    panel.hold(element);
  });
  const close = () => { list.hidden = true; buttons[at].element.focus(); };
  const place = () => { // over the panel, on the side of its corner
    const [field, whole] = [panel.field, S.root].map((element) => element.getBoundingClientRect());
    const room = field.width - list.offsetWidth, left = field.left - whole.left + Math.max(0, [0, room, room / 2][at]);
    Object.assign(list.style, { top: `${field.top - whole.top}px`, left: `${Math.min(left, whole.width - list.offsetWidth - 8)}px` });
  };
  const pick = (name) => { close(); S.send("corner", { place: at, name }); };
  function open(k) {
    at = k;
    list.replaceChildren();
    const now = S.view("corners")[k], search = make("input", "", list, { type: "search", placeholder: "search the classes" });
    search.setAttribute("aria-label", "search the classes");
    const rows = make("div", "corner-rows", list), suggested = S.view("suggestions")[k];
    const fill = () => {
      const wanted = search.value.toLowerCase(), all = [...S.view("classnames"), "rest"].filter((n) => n.toLowerCase().includes(wanted));
      rows.replaceChildren();
      if (!wanted && suggested.length) {
        make("b", "", rows, { textContent: `most confused with ${now}` });
        for (const [name, share] of suggested) S.button(`${name} (${percent(share, 1)})`, () => pick(name), { parent: rows });
        make("b", "", rows, { textContent: "all" });
      }
      for (const name of all.slice(0, 60)) S.button(name, () => pick(name), { parent: rows });
      if (all.length > 60) make("span", "", rows, { textContent: `and ${all.length - 60} more: type to search` });
    };
    search.oninput = fill;
    search.onkeydown = (event) => { if (event.key === "Enter") rows.querySelector("button")?.click(); };
    fill();
    list.hidden = false;
    place();
    search.focus();
  }
  list.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } });
  S.listen(S.root, "pointerdown", (event) => { if (!list.hidden && !list.contains(event.target)) list.hidden = true; });
  return () => buttons.forEach(({ element }, k) => {
    const name = S.view("corners")[k];
    Object.assign(element, { textContent: name + " ▾", title: `${name}: choose another class` });
    element.setAttribute("aria-label", `${["left", "right", "top"][k]} corner: ${name}; choose another class`);
  });
}

export default { render };
