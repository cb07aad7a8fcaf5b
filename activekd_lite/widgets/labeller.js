// The page of the Labeller: displays `shown`, sends each answer with its image index and the seconds it took.
// The clock of an image runs while at least half of it is on the screen in a visible tab. It starts only once the widget has
// been focused, touched or pointed at, so that time spent reading the notebook does not count.

const MOST_BUTTONS = 60; // further classes are reached through the search field
const KERNEL_TIMEOUT = 4000; // milliseconds

function make(tag, name, parent, fields = {}) {
  const element = Object.assign(document.createElement(tag), fields);
  if (name) element.className = `activekd-labeller-${name}`;
  parent.append(element);
  return element;
}

function sameQuestion(one, other) {
  return one.index === other.index && one.events === other.events;
}

function render({ model, el }) {
  const names = model.get("classnames");
  const digits = names.every((name) => /^[0-9]$/.test(name)); // if so, each digit key selects the class of that name
  const searching = names.length > 10;
  let shown = {}, locked = false, timeout = 0, places = []; // places: class positions of the buttons, in order
  let spent = 0, since = null; // milliseconds spent on this image, and when its clock last started
  let drawn = false, onScreen = false, begun = false; // conditions of the clock: image decoded, in view, widget in use

  const root = make("div", "", el);
  root.className = "activekd-labeller";
  root.tabIndex = 0;
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Label the image");
  const parts = make("div", "parts", root);
  const picture = make("div", "picture", parts);
  const image = make("img", "image", picture);
  const waiting = make("span", "waiting", picture);
  const right = make("div", "right", parts);
  const progress = make("p", "progress", right);
  progress.setAttribute("role", "status");
  const search = searching ? make("input", "search", right, { type: "text", placeholder: "Type to filter the classes" }) : null;
  search?.setAttribute("aria-label", "filter the classes");
  const classes = make("div", "classes", right);
  const tools = make("div", "tools", right);
  const skip = tool("skip", "Skip", searching ? "→" : "s", () => send("skip"));
  const undo = tool("undo", "Undo", searching ? "←" : "u", () => shown.undo && send("undo"));
  const feedback = make("p", "feedback", right);
  feedback.setAttribute("aria-live", "polite");
  const error = make("p", "error", right);
  error.setAttribute("role", "alert");
  const rounds = make("ul", "rounds", right);
  rounds.setAttribute("aria-label", "accuracy after each round");
  make("p", "help", right, {
    textContent: searching
      ? "Click here, then use the keyboard: letters filter the classes, a digit or Enter selects one. "
        + "When the search field is empty, ← undoes and → skips."
      : "Click here, then use the keyboard. Space also skips, and Backspace undoes.",
  });

  function tool(name, text, key, action) {
    const button = make("button", name, tools, { type: "button", onclick: action });
    make("kbd", "", button, { textContent: key });
    button.append(text);
    return button;
  }

  function keyOf(row, place) {
    return digits ? names[place] : row < 10 ? String((row + 1) % 10) : "";
  }

  function filter() {
    const wanted = (search?.value || "").trim().toLowerCase();
    const all = names.map((_, place) => place).filter((place) => names[place].toLowerCase().includes(wanted));
    places = all.slice(0, MOST_BUTTONS);
    classes.replaceChildren();
    places.forEach((place, row) => {
      const button = make("button", "class", classes, { type: "button", onclick: () => answer(place) });
      button.dataset.name = names[place];
      button.dataset.label = place;
      if (keyOf(row, place)) make("kbd", "", button, { textContent: keyOf(row, place) });
      button.append(names[place]);
    });
    if (all.length > places.length) make("span", "", classes, { textContent: `and ${all.length - places.length} more` });
    if (!all.length) make("span", "", classes, { textContent: "no class matches" });
    updateButtons();
  }

  function updateButtons() {
    const open = shown.index >= 0;
    for (const button of [...classes.querySelectorAll("button"), skip]) button.setAttribute("aria-disabled", String(!open));
    undo.setAttribute("aria-disabled", String(!(open && shown.undo)));
  }

  function answer(place) {
    send("answer", { label: place });
  }

  function send(kind, more = {}) {
    if (locked || !(shown.index >= 0)) return;
    locked = true; // until the kernel updates `shown`
    setClock();
    model.send({ kind, index: shown.index, seconds: spent / 1000, ...more });
    timeout = setTimeout(() => {
      error.textContent = "The kernel is busy or has stopped. If it was restarted, run this cell again; all your answers are saved.";
    }, KERNEL_TIMEOUT);
    if (search) {
      search.value = "";
      filter();
    }
  }

  function setClock() {
    const runs = drawn && onScreen && begun && !locked && !document.hidden, now = performance.now();
    if (since !== null) spent += now - since;
    since = runs ? now : null;
  }

  function begin() {
    if (!begun) {
      begun = true;
      setClock();
    }
  }

  function show() {
    const before = shown;
    shown = model.get("shown");
    locked = false;
    clearTimeout(timeout);
    progress.textContent = shown.title || "";
    feedback.textContent = shown.feedback || "";
    error.textContent = shown.error || "";
    rounds.replaceChildren();
    for (const text of shown.rounds || []) make("li", "", rounds, { textContent: text });
    const open = shown.index >= 0;
    image.hidden = !open;
    image.style.display = open ? "" : "none";
    waiting.textContent = open ? "" : shown.busy ? "training the student ..." : "";
    root.setAttribute("aria-busy", String(!!shown.busy));
    updateButtons();
    if (sameQuestion(before, shown)) return setClock(); // same question: its clock keeps running
    drawn = false;
    setClock();
    spent = 0;
    if (!open) return image.removeAttribute("src");
    image.alt = shown.alt;
    image.src = shown.image;
    const asked = shown;
    image.decode().catch(() => {}).then(() => requestAnimationFrame(() => {
      if (!sameQuestion(asked, shown)) return;
      drawn = true;
      setClock();
    }));
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { key } = event, typing = event.target === search, empty = !search || search.value === "";
    const onButton = event.target.tagName === "BUTTON";
    let action = null;
    if (/^[0-9]$/.test(key)) {
      const place = places.find((at, row) => keyOf(row, at) === key);
      action = () => place !== undefined && answer(place);
    } else if (onButton && (key === " " || key === "Enter")) {
      return; // handled by the button
    } else if (searching && key === "Enter") {
      action = () => places.length === 1 && answer(places[0]);
    } else if (empty && (key === "ArrowLeft" || key === "Backspace" || (!searching && key.toLowerCase() === "u"))) {
      action = () => shown.undo && send("undo");
    } else if (empty && (key === "ArrowRight" || (!searching && (key === " " || key.toLowerCase() === "s")))) {
      action = () => send("skip");
    } else if (searching && key === "Escape") {
      action = () => { search.value = ""; filter(); };
    } else if (searching && !typing && key.length === 1 && key !== " ") {
      search.focus(); // the letter is typed there
    }
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) action(); // a key held down answers once
  }

  function click(event) {
    if (!event.target.closest("button, input")) (search || root).focus();
    else if (event.detail && event.target.closest("button")) (search || root).focus({ preventScroll: true }); // by mouse
  }

  const screen = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).intersectionRatio >= 0.5;
    setClock();
  }, { threshold: 0.5 });
  screen.observe(image);
  for (const sign of ["focusin", "pointerdown", "pointermove"]) root.addEventListener(sign, begin);
  root.addEventListener("keydown", press);
  root.addEventListener("click", click);
  search?.addEventListener("input", filter);
  document.addEventListener("visibilitychange", setClock);
  model.on("change:shown", show);
  filter();
  show();
  return () => {
    clearTimeout(timeout);
    screen.disconnect();
    document.removeEventListener("visibilitychange", setClock);
    model.off("change:shown", show);
  };
}

export default { render };
