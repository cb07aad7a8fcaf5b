// PromptExplorer: class names and templates as text; the teacher's answers follow while they are typed.
const REST = 1000; // milliseconds without a key stroke, after which prompts are noted in the history

function render({ model, el }) {
  const S = shell({
    model, el, name: "prompts", title: "Ask the teacher in other words",
    hands: "type: ask · click a confusion: show it in the triangle",
    keys: [["type", "class names and templates, one per line"], ["Ctrl + Enter", "note the prompts in the history at once"],
      ["← ↑ → ↓", "in the triangle: go to the neighbour in that direction"], ["wheel, + −", "zoom, when the triangle was clicked; 0 shows all"], ["Esc", "clear the selection"], ...FINGERS],
  });
  const L = linked(S, { count: S.view("count"), caption });
  S.root.classList.add("akd-few");

  // Left: what is asked. Middle: the answers. Right: what is mixed up, and the classes.
  const [asked, answers, classes] = [S.side(2, 210), S.side(3, 270), S.side(3, 270)];
  classes.classList.add("akd-third");
  const task = S.view("tasks").length > 1 && S.select("task", S.view("tasks"), S.view("task"), (name) => S.send("task", { name }), { parent: make("div", "row", asked) });
  const names = S.field("Class names, one per line, in the order of the classes", { rows: 8 }, typed, { parent: asked, onDone: left });
  const templates = S.field("Templates, one per line; {}: the name", { rows: 3 }, typed, { parent: asked, onDone: left });
  const warning = make("p", "warning", asked, { role: "status" });
  const own = S.button("the task's own prompts", () => S.send("own"), { parent: make("div", "row", asked), icon: "↺", title: "restore the class names and templates of the task" });
  const history = addHistory(S, make("div", "history", asked));

  const scores = make("p", "prompts-scores", answers, { role: "status" });
  const triangle = L.panel(answers, { height: 320 });
  const corners = addCornerMenus(S, triangle);
  const key = S.legend(S.view("legend"), { parent: answers, onFilter: (hidden) => L.hidden(hidden) });
  const mixedUp = make("h3", "", answers);
  const errors = make("div", "errors", answers);

  const heat = addHeat(S, make("div", "heat", classes)), paired = addClasses(S, make("div", "classes", classes));

  // Typing: one question at a time is under way; the newest text is asked next.
  let busy = null, wanted = null, rest = null, written = null, dirty = false;
  function typed() {
    dirty = true;
    wanted = { classnames: names.input.value, templates: templates.input.value };
    clearTimeout(rest);
    rest = setTimeout(() => note("keep"), REST);
    if (!busy) ask();
  }
  function ask() {
    busy = null;
    if (!wanted) return;
    S.send("typed", wanted);
    wanted = null;
    busy = setTimeout(ask, 3000); // without an answer: the kernel is busy elsewhere
  }
  function answered() { clearTimeout(busy); ask(); }
  function note(kind) {
    if (wanted) answered(); // the newest text comes first
    S.send(kind);
  }
  function left() {
    clearTimeout(rest);
    if (dirty) { dirty = false; note("left"); }
  }
  S.told("answered", answered);
  for (const { input } of [names, templates]) {
    input.spellcheck = false;
    input.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.ctrlKey) { event.preventDefault(); left(); } });
  }
  S.cleanup(() => { clearTimeout(rest); clearTimeout(busy); });

  function caption(i) {
    const group = S.array("groups", Int16Array)[i], entry = S.view("legend").find((e) => e.key === group);
    return `image ${i}${entry ? `, ${entry.name}` : ""}`;
  }

  S.on("written", () => {
    const [first, second, number] = S.view("written");
    if (number === written) return;
    written = number;
    names.set(first);
    templates.set(second);
    wanted = null;
  });
  S.on("task", () => task && task.set(null, S.view("task")));
  S.on(["scores", "warning", "refused"], () => {
    const text = S.view("scores"), main = text.match(/^[^(,;]*/)[0];
    scores.replaceChildren(make("b", "", null, { textContent: main }), text.slice(main.length));
    warning.textContent = S.view("refused") || S.view("warning");
  });
  S.on(["xy", "groups", "labels", "titles"], () => {
    triangle.set({ xy: S.array("xy"), groups: S.array("groups", Int16Array), looks: S.view("looks"), range: S.view("range"), lines: S.view("lines"),
      title: S.view("titles")[0], label: `triangle of ${S.view("corners").join(", ")}; ${S.view("titles")[0]}` });
  });
  S.on("legend", () => { key.set(S.view("legend")); L.hidden(key.hidden); });
  S.on(["corners", "options"], corners);
  S.on(["errors", "kind"], () => {
    errors.replaceChildren();
    mixedUp.textContent = S.view("kind") === "true" ? "Largest confusions" : "Largest probabilities of another class";
    for (const [a, b, share] of S.view("errors")) S.button(`${a} → ${b}: ${percent(share / 100)}`, () => S.send("pair", { true: a, predicted: b }), { parent: errors, title: `${a} and ${b}: show both in the triangle` });
    if (!S.view("errors").length) errors.textContent = "none";
  });
  S.on(["shares", "rows", "columns", "titles"], heat);
  S.on("classes", paired);
  S.on("history", history);
  S.onReset(() => { key.clear(); L.reset(); S.send("own"); });
  return S.close;
}

// One menu at each corner of the triangle.
function addCornerMenus(S, panel) {
  const menus = ["left", "right", "top"].map((side, place) => {
    const menu = S.select("", [], "", (name) => S.send("corner", { place, name })), select = menu.element.querySelector("select");
    menu.element.classList.add("akd-corner", `akd-corner-${place}`);
    select.setAttribute("aria-label", `${side} corner`);
    panel.hold(menu.element);
    return menu;
  });
  return () => menus.forEach((menu, place) => menu.set(S.view("options"), S.view("corners")[place]));
}

// The prompts that were tried, each a button that brings them back.
function addHistory(S, parent) {
  const head = make("div", "row", parent);
  make("h3", "", head, { textContent: "Tried so far" });
  let order = "best first";
  const list = make("ol", "", parent, { tabIndex: 0 });
  list.setAttribute("aria-label", "prompts tried so far");
  S.select("", ["best first", "in order"], order, (v) => { order = v; draw(); }, { parent: head }).element.querySelector("select").setAttribute("aria-label", "order of the prompts tried so far");
  const score = (e) => e.accuracy_pct ?? -1;
  function draw() {
    const tried = S.view("history"), best = Math.max(...tried.map(score)), rows = order === "in order" ? tried : [...tried].sort((a, b) => score(b) - score(a) || b.confidence - a.confidence);
    list.replaceChildren();
    for (const e of rows) {
      const button = S.button("", () => S.send("again", { place: e.place }), { parent: make("li", "", list), title: "go back to these prompts" }).element;
      make("b", "", button, { textContent: e.accuracy_pct === null ? "?" : percent(e.accuracy_pct / 100, 1) });
      make("span", "", button, { textContent: e.words });
      make("span", "aside", button, { textContent: `confidence ${e.confidence.toFixed(2)}${score(e) === best && best >= 0 && tried.length > 1 ? ", best" : ""}` });
      if (e.now) button.setAttribute("aria-current", "true");
    }
  }
  return draw;
}

// Confusions as a table with names and values; for many classes as a picture with names on hover.
function addHeat(S, parent) {
  const title = make("h3", "", parent), room = make("div", "heat-room", parent), said = make("p", "aside", parent);
  const paint = (share) => mixed(S.theme.paper, S.theme.hot, Math.min(1, share / S.view("most")));
  const ink = (back) => (contrast(back, "#000") > contrast(back, "#fff") ? "#000" : "#fff"); // one of them has 4.5:1
  const labelled = () => S.view("kind") === "true";
  const axes = () => `Rows: ${S.view("kind")} class, columns: ${labelled() ? "predicted" : "mean probability"}.`;
  const words = (a, b, share) => labelled() ? `${a} predicted as ${b}: ${share}\u00a0%` : `predicted ${a}, mean probability of ${b}: ${share}\u00a0%`;
  const pair = (a, b) => S.send("pair", { true: a, predicted: b });
  function table(rows, columns, shares) {
    const element = make("table", columns.every((name) => name.length < 3) ? "short" : ""), body = make("tbody", "", null);
    make("caption", "only-spoken", element, { textContent: S.view("titles")[1] });
    rows.forEach((row, i) => {
      const line = make("tr", "", body);
      columns.forEach((column, j) => {
        const share = shares[i * columns.length + j], cell = make("td", "", line, { textContent: share ? String(share) : "", title: words(row, column, share) });
        if (row === column) return cell.classList.add("akd-right");
        cell.style.background = paint(share);
        cell.style.color = ink(paint(share));
        if (share) cell.onclick = () => pair(row, column);
      });
      make("th", "", line, { scope: "row", textContent: row });
    });
    const foot = make("tr", "", body);
    for (const column of columns) make("span", "", make("th", "", foot, { scope: "col" }), { textContent: column });
    make("td", "none", foot);
    element.append(body);
    room.replaceChildren(element);
    said.textContent = axes();
  }
  function picture(rows, columns, shares) {
    const side = Math.max(1, Math.floor(Math.min(320, room.clientWidth || 320) / Math.max(rows.length, columns.length)));
    const ratio = window.devicePixelRatio || 1, canvas = make("canvas", "", null, { width: side * columns.length * ratio, height: side * rows.length * ratio, tabIndex: 0, role: "img" });
    const c = canvas.getContext("2d"), gap = side > 4 ? 1 : 0, paints = Array.from({ length: 101 }, (_, share) => share ? paint(share) : S.theme.paper);
    canvas.style.cssText = `width:${side * columns.length}px;height:${side * rows.length}px`;
    canvas.setAttribute("aria-label", `${S.view("titles")[1]}: ` + S.view("errors").map(([a, b, share]) => words(a, b, Math.round(share))).join("; "));
    c.scale(ratio, ratio);
    for (let i = 0; i < rows.length; i++) for (let j = 0; j < columns.length; j++) {
      const share = shares[i * columns.length + j], same = rows[i] === columns[j];
      c.fillStyle = same ? S.theme.faint : paints[Math.min(100, share)];
      c.fillRect(j * side, i * side, side - gap, side - gap);
    }
    const at = (event) => {
      const box = canvas.getBoundingClientRect(), i = Math.floor((event.clientY - box.top) / side), j = Math.floor((event.clientX - box.left) / side);
      return i >= 0 && j >= 0 && i < rows.length && j < columns.length ? [rows[i], columns[j], shares[i * columns.length + j]] : null;
    };
    const idle = `${axes()} Point at a field to read it.`;
    canvas.onpointermove = (event) => { const found = at(event); said.textContent = found ? words(...found) : idle; };
    canvas.onpointerleave = () => { said.textContent = idle; };
    canvas.onclick = (event) => { const found = at(event); if (found && found[0] !== found[1]) pair(found[0], found[1]); };
    said.textContent = idle;
    room.replaceChildren(canvas);
  }
  const draw = () => {
    const rows = S.view("rows"), columns = S.view("columns"), shares = S.array("shares", Uint8Array);
    title.textContent = S.view("titles")[1];
    (Math.max(rows.length, columns.length) <= S.view("few") ? table : picture)(rows, columns, shares);
  };
  S.onTheme(draw);
  S.onSize(draw);
  return draw;
}

// Accuracy of each class: a ring for the task's own prompts, a dot for the current ones.
function addClasses(S, parent) {
  make("h3", "", parent, { textContent: "Accuracy per class" });
  const note = make("p", "aside", parent), room = make("div", "classes-room", parent, { tabIndex: 0, role: "region" });
  room.setAttribute("aria-label", "accuracy per class");
  const x = (value) => 6 + value * 1.08;
  const draw = () => {
    const rows = S.view("classes"), moved = rows.filter(([, before, now]) => before !== now);
    note.textContent = !rows.length ? "Known only with one name per class of the task, and labels." :
      moved.length ? "ring: own prompts, dot: these; largest change first" : "no difference to the task's own prompts";
    room.hidden = !rows.length;
    const table = make("table", ""), top = make("tr", "", make("thead", "", table));
    for (const name of ["class", "0 to 100\u00a0%", "own", "now"]) make("th", "", top, { scope: "col", textContent: name });
    const body = make("tbody", "", table), order = [...rows].sort((a, b) => Math.abs(b[2] - b[1]) - Math.abs(a[2] - a[1]));
    for (const [name, before, now] of order) {
      const line = make("tr", "", body), better = now >= before ? S.theme.good : S.theme.hot;
      make("th", "", line, { scope: "row", textContent: name });
      const picture = svg("svg", make("td", "", line), { viewBox: "0 0 120 14", class: "akd-pair", "aria-hidden": "true" });
      svg("line", picture, { x1: x(0), x2: x(100), y1: 7, y2: 7, stroke: S.theme.faint });
      svg("line", picture, { x1: x(before), x2: x(now), y1: 7, y2: 7, stroke: better, "stroke-width": 3 });
      svg("circle", picture, { cx: x(before), cy: 7, r: 4, fill: S.theme.paper, stroke: S.theme.ink, "stroke-width": 1.5 });
      svg("circle", picture, { cx: x(now), cy: 7, r: 3.5, fill: before === now ? S.theme.ink : better });
      for (const value of [before, now]) make("td", "", line, { textContent: Math.round(value) });
    }
    room.replaceChildren(table);
  };
  S.onTheme(draw);
  return draw;
}

export default { render };
