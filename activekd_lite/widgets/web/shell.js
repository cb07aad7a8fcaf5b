// What all explorers share: head, controls, legend, status, theme, keys, help, full screen, pictures.
// The files of this folder are joined into one script: shell.js, points.js, chart.js, and the explorer's own.

const KERNEL_TIMEOUT = 8000; // milliseconds
const SILENT = "The kernel is busy or has stopped. If it was restarted, run this cell again.";

function make(tag, name, parent, attributes = {}) {
  const element = document.createElement(tag);
  if (name) element.className = "akd-" + name;
  for (const [key, value] of Object.entries(attributes))
    key in element && key !== "role" ? (element[key] = value) : element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

// Luminance of a CSS colour, 0 to 1, and the contrast of two (WCAG 2).
const rgbOf = (() => {
  const c = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true }), known = {};
  return (colour) => {
    if (!known[colour]) {
      c.clearRect(0, 0, 1, 1);
      c.fillStyle = colour;
      c.fillRect(0, 0, 1, 1);
      known[colour] = [...c.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    }
    return known[colour];
  };
})();

function luminance(colour) {
  const [r, g, b] = rgbOf(colour).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

const plural = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}\u00a0%`;

const mixed = (a, b, share) => `rgb(${rgbOf(a).map((v, k) => Math.round(v + share * (rgbOf(b)[k] - v)))})`;

// A mark's colour and outline: the hue is kept, and the outline reaches 3:1 where the hue does not. Black becomes ink.
function paintOf(colour, theme) {
  if (luminance(colour) < 0.01 && theme.dark) colour = theme.ink;
  if (contrast(colour, theme.paper) >= 3) return { fill: colour, edge: mixed(colour, theme.paper, 0.5) };
  let edge = colour;
  for (let share = 0.1; share <= 1 && contrast(edge, theme.paper) < 3; share += 0.1) edge = mixed(colour, theme.ink, share);
  return { fill: colour, edge };
}

function shell({ model, el, name, title, hands, fingers = hands, keys = [], silent = SILENT, patience = KERNEL_TIMEOUT }) {
  const ends = [], handlers = new Map(), themed = [];
  let waiting = null; // for Python to handle a message
  const root = make("section", "shell akd-" + name, el);
  root.setAttribute("aria-label", title);
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // otherwise JupyterLab takes the keys
  root.tabIndex = -1;
  const head = make("div", "head", root), parts = {};
  make("h2", "", head, { textContent: title });
  make("span", "hands", head, { textContent: `${model.get("view").hands || (matchMedia("(pointer: coarse)").matches ? fingers : hands)} · ?: all keys` });
  const tools = make("div", "tools", head);
  for (const part of ["bar", "legend", "main", "below", "foot"]) parts[part] = make("div", part, root);
  const status = make("span", "status", parts.foot, { role: "status" }), progress = make("span", "progress", parts.foot, { hidden: true });

  const S = {
    model, root, bar: parts.bar, main: parts.main, below: parts.below, legendBox: parts.legend, theme: {},
    calm: matchMedia("(prefers-reduced-motion: reduce)").matches,
    cleanup: (end) => void ends.push(end),
    view: (key) => model.get("view")[key],
    array: (key, Type = Float32Array) => {
      const bytes = model.get(key);
      return bytes?.byteLength ? new Type(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)) : null;
    },
    send: (kind, fields = {}) => {
      model.send({ kind, ...fields });
      waiting ??= setTimeout(() => S.status(silent, "error"), patience);
    },
    status: (text, kind = "") => {
      if (status.textContent !== text) status.textContent = text;
      status.classList.toggle("akd-error", kind === "error");
    },
    progress: (text) => { // with the seconds since it was first said
      clearInterval(S.ticking);
      progress.hidden = !text;
      const start = performance.now(), tick = () => { progress.textContent = `${text}: ${Math.round((performance.now() - start) / 1000)} s`; };
      if (text) { tick(); S.ticking = setInterval(tick, 1000); }
    },
    key: (key, action) => void handlers.set(key, action),
    onReset: (action) => { reset.element.hidden = false; S.reset = action; },
    onTheme: (action) => void themed.push(action),
    redraw: () => themed.forEach((draw) => draw()),
    pixels: () => S.sharp || window.devicePixelRatio || 1, // of a canvas per pixel of the page
    side: (weight = 1, least = 220) => {
      const column = make("div", "side", S.main);
      column.style.flex = `${weight} 1 ${least}px`;
      return column;
    },
    listen(source, event, action) {
      source.on ? source.on(event, action) : source.addEventListener(event, action);
      S.cleanup(() => source.off ? source.off(event, action) : source.removeEventListener(event, action));
    },
    animate(milliseconds, frame, done = () => {}) {
      cancelAnimationFrame(S.frame);
      if (S.calm || !root.isConnected) return frame(1), done();
      const start = performance.now(), step = (now) => {
        const t = Math.min(1, Math.max(0, (now - start) / milliseconds));
        frame(t * t * (3 - 2 * t));
        t < 1 ? (S.frame = requestAnimationFrame(step)) : done();
      };
      S.frame = requestAnimationFrame(step);
    },
  };
  S.cleanup(() => { cancelAnimationFrame(S.frame); clearInterval(S.ticking); clearTimeout(waiting); });

  // State: a name is a key of `view`, which Python replaces as a whole, or an array. What changed is drawn once, together.
  const watched = [], dirty = new Set();
  let last = model.get("view"), planned = false;
  const flush = () => {
    planned = false;
    const names = new Set(dirty);
    dirty.clear();
    for (const [wanted, draw] of watched) if (wanted.some((name) => names.has(name))) draw();
  };
  const touch = (name) => {
    dirty.add(name);
    if (!planned) { planned = true; queueMicrotask(flush); }
  };
  const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);
  S.on = (names, draw) => {
    const wanted = [].concat(names);
    for (const name of wanted) if (model.get(name) !== undefined && !watched.some(([known]) => known.includes(name)))
      S.listen(model, "change:" + name, () => touch(name));
    watched.push([wanted, draw]);
    draw();
  };
  S.listen(model, "change:view", () => {
    const view = model.get("view"), before = last;
    last = view;
    for (const key of new Set([...Object.keys(view), ...Object.keys(before)])) if (!same(view[key], before[key])) touch(key);
  });
  const showStatus = () => S.status(S.view("error") || S.view("status") || "", S.view("error") ? "error" : "");
  S.on(["status", "error"], showStatus);
  S.on("progress", () => S.progress(S.view("progress")));
  const answered = () => { // a sign of life from Python
    clearTimeout(waiting);
    waiting = null;
    if (status.textContent === silent) showStatus();
  };
  const told = { done: answered };
  S.listen(model, "change:view", answered);
  S.told = (kind, action) => { told[kind] = action; };
  S.listen(model, "msg:custom", (message) => told[message.kind]?.(message));

  // Colours: read anew when the page changes its theme.
  const backdrop = () => {
    const code = getComputedStyle(document.documentElement).getPropertyValue("--vscode-editor-background").trim();
    if (code) return code; // VS Code's page itself is transparent
    for (let at = el; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/^rgba\(.*, 0\)$|transparent/.test(colour)) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? "#161616" : "#ffffff";
  };
  const readTheme = () => {
    if (!root.isConnected) return;
    const flag = document.body.dataset.jpThemeLight; // JupyterLab says it
    const dark = flag ? flag === "false" : luminance(backdrop()) < 0.2;
    root.classList.toggle("akd-dark", dark);
    const style = getComputedStyle(root), names = ["ink", "paper", "muted", "line", "faint", "soft", "accent", "hot", "good"];
    const theme = Object.fromEntries(names.map((key) => [key, style.getPropertyValue("--akd-" + key).trim()])), before = S.theme;
    S.theme = { ...theme, dark };
    if (JSON.stringify(before) !== JSON.stringify(S.theme)) S.redraw();
  };
  const watch = new MutationObserver(() => setTimeout(readTheme, 50));
  for (const at of [document.body, document.documentElement]) watch.observe(at, { attributes: true });
  S.cleanup(() => watch.disconnect());
  S.listen(matchMedia("(prefers-color-scheme: dark)"), "change", readTheme);
  readTheme();
  if (!S.theme.ink) requestAnimationFrame(readTheme);

  // Width: redraw when the cell's width changes.
  const sized = [];
  S.onSize = (action) => void sized.push(action);
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth && root.clientWidth !== width) { width = root.clientWidth; readTheme(); sized.forEach((action) => action()); }
  });
  observer.observe(root);
  S.cleanup(() => observer.disconnect());

  addControls(S);
  const reset = S.button("Reset", () => S.reset(), { parent: tools, title: "start again" });
  reset.element.hidden = true;
  S.button("Save picture", () => savePicture(S, title), { parent: tools, title: "save what is drawn as a PNG file" });
  if (root.requestFullscreen)
    S.button("Full screen", () => document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen(), { parent: tools });
  addHelp(S, tools, title, keys);
  addPictures(S);

  S.listen(root, "keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const at = event.target, typing = at.matches("textarea, select, input:not([type=range], [type=checkbox])");
    const own = at.matches("input") || (at.matches("button") && (event.key === " " || event.key === "Enter"));
    const action = handlers.get(event.key);
    if (!action || typing || (own && event.key !== "Escape" && event.key !== "?")) return;
    if (action(event) === false) return; // not for this handler
    event.preventDefault();
    event.stopPropagation();
  });
  S.close = () => { ends.forEach((end) => end()); root.remove(); };
  return S;
}

function addControls(S) {
  const place = (label, parent, tall) => {
    const box = make("label", "control" + (tall ? " akd-tall" : ""), parent || S.bar);
    if (label) make("span", "", box, { textContent: label });
    return box;
  };
  S.select = (label, options, value, onChange, { parent, title } = {}) => {
    const box = place(label, parent), select = make("select", "", box, { title: title || "", onchange: () => onChange(select.value) });
    const set = (entries, chosen) => {
      const pairs = (entries || options).map((entry) => Array.isArray(entry) ? entry : [entry, entry]);
      if (entries || !select.options.length) {
        const now = [...select.options].map((o) => o.value + "\n" + o.text).join("\n\n");
        if (now !== pairs.map((pair) => pair.join("\n")).join("\n\n"))
          select.replaceChildren(...pairs.map(([key, text]) => make("option", "", null, { value: key, textContent: text })));
      }
      select.value = chosen ?? select.value;
    };
    set(options, value);
    return { element: box, set };
  };
  S.slider = (label, { min = 0, max = 1, step = 1, value = min, text = String }, onInput, { parent } = {}) => {
    const box = place(label, parent), input = make("input", "", box, { type: "range" }), said = make("output", "", box);
    const show = () => { said.textContent = text(+input.value); input.setAttribute("aria-valuetext", said.textContent); };
    Object.assign(input, { min, max, step, value });
    input.oninput = () => { show(); onInput(+input.value); };
    show();
    return { element: box, input, set: (v) => { if (+input.value !== v) input.value = v; show(); } };
  };
  S.button = (text, onClick, { parent, title, pressed, icon } = {}) => {
    const button = make("button", "", parent || S.bar, { type: "button", title: title || "", textContent: (icon ? icon + " " : "") + text });
    button.onclick = (event) => button.getAttribute("aria-disabled") !== "true" && onClick(event);
    const press = (on) => button.setAttribute("aria-pressed", String(!!on));
    if (pressed !== undefined) press(pressed);
    return { element: button, press, enable: (on) => button.setAttribute("aria-disabled", String(!on)), text: (t) => { button.textContent = t; } };
  };
  S.check = (label, value, onChange, { parent } = {}) => {
    const box = make("label", "control", parent || S.bar), input = make("input", "", box, { type: "checkbox", checked: value });
    make("span", "", box, { textContent: label });
    input.onchange = () => onChange(input.checked);
    return { element: box, input, set: (v) => { input.checked = v; } };
  };
  S.field = (label, { value = "", placeholder = "", rows = 1, type = "text", width } = {}, onInput, { parent, onDone } = {}) => {
    const box = place(label, parent, rows > 1), input = make(rows > 1 ? "textarea" : "input", "", box, { value, placeholder });
    rows > 1 ? (input.rows = rows) : (input.type = type);
    if (width) input.style.width = width;
    input.oninput = () => onInput?.(input.value);
    input.onchange = () => onDone?.(input.value);
    return { element: box, input, set: (v) => { if (input.value !== v) input.value = v; } };
  };
  S.legend = (entries, options = {}) => legend(S, entries, options);
}

function addHelp(S, tools, title, keys) {
  const card = make("div", "card", S.root, { hidden: true, role: "dialog", "aria-label": `keys of: ${title}`, tabIndex: -1 });
  make("b", "", card, { textContent: "Keys, mouse and fingers" });
  const list = make("dl", "", card);
  for (const [key, text] of [...keys, ["?", "show or hide this card"], ["Esc", "close this card"]]) {
    make("kbd", "", make("dt", "", list), { textContent: key });
    make("dd", "", list, { textContent: text });
  }
  const toggle = () => { card.hidden = !card.hidden; button.press(!card.hidden); (card.hidden ? button.element : card).focus(); };
  const button = S.button("?", toggle, { parent: tools, title: "all keys", pressed: false });
  button.element.setAttribute("aria-label", "all keys");
  S.button("Close", toggle, { parent: card });
  card.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    toggle();
  });
  S.key("?", toggle);
}

// Images by pool index: cut from the sheet where it holds them, else asked of the kernel; the last 500 are kept.
function addPictures(S) {
  const sheet = S.model.get("sheet") || {}, known = new Map(), waiting = new Map(), strip = sheet.sheet ? new Image() : null;
  const ready = strip ? (strip.src = sheet.sheet, strip.decode().catch(() => {})) : Promise.resolve();
  S.sheet = { ...sheet, strip, ready };
  S.hasTile = (i) => !!strip && i % sheet.step === 0 && i / sheet.step < sheet.count;
  S.tileOf = (i) => { const t = i / sheet.step; return [(t % sheet.columns) * sheet.side, Math.floor(t / sheet.columns) * sheet.side, sheet.side]; };
  S.picture = async (i) => {
    if (known.has(i)) return known.get(i);
    if (S.hasTile(i)) {
      await ready;
      const [x, y, side] = S.tileOf(i), canvas = make("canvas", "", null, { width: side, height: side });
      canvas.getContext("2d").drawImage(strip, x, y, side, side, 0, 0, side, side);
      return keep(i, canvas.toDataURL());
    }
    const asked = waiting.get(i) || [];
    return new Promise((found) => {
      asked.push(found);
      waiting.set(i, asked);
      if (asked.length === 1) S.send("picture", { index: i });
    });
  };
  const keep = (i, source) => {
    known.set(i, source);
    if (known.size > 500) known.delete(known.keys().next().value);
    return source;
  };
  S.told("picture", ({ index, source }) => {
    for (const found of waiting.get(index) || []) found(source);
    waiting.delete(index);
    keep(index, source);
  });
}

// The legend: a click hides or shows a group, a double click leaves only that one; many groups can be searched.
function legend(S, entries, { onFilter, parent } = {}) {
  const box = parent ? make("div", "legend", parent) : S.legendBox, hidden = new Set();
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "legend; a click hides or shows a group");
  let search = null, wanted = "";
  const filter = () => { draw(); onFilter?.(hidden); };
  const toggle = (key) => { hidden.has(key) ? hidden.delete(key) : hidden.add(key); filter(); };
  const only = (key) => { for (const e of entries) e.key === key ? hidden.delete(e.key) : hidden.add(e.key); filter(); };
  const item = (entry) => {
    const fixed = !onFilter || entry.fixed, element = make(fixed ? "span" : "button", fixed ? "fixed" : "", null);
    if (!fixed) {
      Object.assign(element, { type: "button", title: `click: hide or show; double click: only ${entry.name}` });
      element.setAttribute("aria-pressed", String(!hidden.has(entry.key)));
      element.dataset.key = entry.key;
      element.onclick = () => toggle(entry.key);
      element.ondblclick = () => only(entry.key);
    }
    element.append(swatch(entry.look, S), entry.name + (entry.count === undefined ? "" : ` (${entry.count.toLocaleString("en")})`));
    return element;
  };
  function draw() {
    const focused = document.activeElement?.dataset?.key, many = entries.length > 12;
    const shown = many ? entries.filter((e) => e.name.toLowerCase().includes(wanted)) : entries;
    const parts = [];
    if (many) {
      search ||= make("input", "", null, { type: "search", placeholder: `search ${entries.length} groups`, oninput: () => { wanted = search.value.toLowerCase(); draw(); } });
      search.setAttribute("aria-label", "search the legend");
      parts.push(search);
    }
    let group = null;
    for (const entry of shown) {
      if (entry.group && entry.group !== group) {
        parts.push(make("span", "kin", null));
        make("span", "group", parts.at(-1), { textContent: group = entry.group });
      }
      entry.group ? parts.at(-1).append(item(entry)) : parts.push(item(entry));
    }
    if (hidden.size) parts.push(S.button("show all", () => { hidden.clear(); filter(); }, { parent: make("span", "", null) }).element);
    const typing = document.activeElement === search;
    box.replaceChildren(...parts);
    if (typing) search.focus();
    else if (focused !== undefined) box.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }
  S.onTheme(draw);
  draw();
  return { hidden, set: (next) => { entries = next; const keys = new Set(next.map((e) => e.key)); for (const k of hidden) if (!keys.has(k)) hidden.delete(k); draw(); }, clear: () => { hidden.clear(); filter(); } };
}

// A symbol as an element of its own: the drawn ones are shared, and an element has one place.
function swatch([colour, symbol], S) {
  const [drawn] = sprite(colour, symbol, 6, 2, S.theme), picture = drawn.cloneNode();
  picture.getContext("2d").drawImage(drawn, 0, 0);
  picture.style.cssText = "width:20px;height:20px;flex:none";
  picture.setAttribute("aria-hidden", "true");
  return picture;
}

function bars(parent, rows, { colour } = {}) {
  const list = [];
  for (const [name, share] of rows) {
    const bar = make("i", "", null);
    bar.style.width = `${Math.max(1, 100 * share)}%`;
    if (colour) bar.style.background = colour;
    list.push(make("span", "", null, { textContent: name }), make("span", "", null, { textContent: percent(share) }), bar);
  }
  const box = make("div", "bars", null);
  box.append(...list);
  parent.replaceChildren(box);
}

function tiles(S, parent, entries, { side = 48, most = 60, total = entries.length, onClick } = {}) {
  const box = make("div", "tiles", null);
  if (entries.length === total && total === most + 1) most = total; // "and 1 more" takes as much room
  for (const { index, caption, src, badge } of entries.slice(0, most)) {
    const tile = make(onClick ? "button" : "figure", "tile", box, onClick ? { type: "button", onclick: () => onClick(index) } : {});
    const picture = make("img", "", tile, { alt: `image ${index}`, width: side, height: side });
    src ? (picture.src = src) : S.picture(index).then((source) => { picture.src = source; });
    if (onClick) tile.style.width = `${side + 6}px`;
    else Object.assign(tile.style, { minWidth: `${side}px`, maxWidth: `${1.8 * side}px` }); // room for long words
    if (badge !== undefined) make("b", "", tile, { textContent: badge });
    if (caption) make(onClick ? "span" : "figcaption", "", tile, { textContent: caption });
  }
  const more = total - Math.min(most, entries.length);
  if (more) make("span", "", box, { textContent: `and ${more.toLocaleString("en")} more` });
  parent.replaceChildren(box);
}

// Legend, panels, charts and words on one PNG, with the title above: canvases are drawn anew, with SHARP pixels per pixel.
const SHARP = 2;

async function savePicture(S, title) {
  S.sharp = SHARP;
  S.redraw();
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const canvas = await composed(S, title);
  S.sharp = 0;
  S.redraw();
  const link = make("a", "", null, { download: `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.png`, href: canvas.toDataURL("image/png") });
  link.click();
  S.status(`saved as ${link.download}`);
}

async function composed(S, title) {
  const parts = [S.legendBox, S.main, S.below].filter((part) => part.offsetHeight), boxes = parts.map((part) => part.getBoundingClientRect());
  const edge = 8, top = 40 - boxes[0].top, width = S.root.clientWidth, height = boxes.at(-1).bottom + top + edge;
  const canvas = make("canvas", "", null, { width: width * SHARP, height: height * SHARP }), c = canvas.getContext("2d");
  c.scale(SHARP, SHARP);
  c.fillStyle = S.theme.paper;
  c.fillRect(0, 0, width, height);
  c.fillStyle = S.theme.ink;
  c.font = "bold 18px Helvetica, Arial, sans-serif";
  c.fillText(title, edge, 26);
  c.translate(-S.root.getBoundingClientRect().left, top);
  for (const part of parts) await paint(c, part);
  return canvas;
}

// What is visible of an element and not scrolled away: its box, pictures and words.
async function paint(c, element) {
  const { left, top, width, height } = element.getBoundingClientRect(), style = getComputedStyle(element), at = [left, top, width, height];
  if (!element.checkVisibility() || element.matches(".akd-only-spoken")) return;
  c.save();
  c.globalAlpha *= style.opacity;
  paintBox(c, style, at);
  if (style.overflowY !== "visible") { c.beginPath(); c.rect(...at); c.clip(); }
  c.imageSmoothingEnabled = style.imageRendering !== "pixelated";
  const drawn = element.matches("svg") ? await imageOf(element) : element;
  if (element.matches("canvas, svg, img")) drawn.width && drawn.height && element.complete !== false && c.drawImage(drawn, ...at);
  else if (element.matches("select")) paintWord(c, style, element.selectedOptions[0]?.text || "", left + 9, top + 6);
  else if (element.matches("textarea, input")) element.value.split("\n").forEach((line, k) => paintWord(c, style, line, left + 9, top + 6 + k * parseFloat(style.lineHeight)));
  else for (const node of element.childNodes) node.nodeType === Node.TEXT_NODE ? paintWords(c, style, node) : node.nodeType === Node.ELEMENT_NODE && await paint(c, node);
  c.restore();
}

function paintBox(c, style, [left, top, width, height]) {
  c.fillStyle = style.backgroundColor;
  c.fillRect(left, top, width, height);
  const thick = ["Top", "Right", "Bottom", "Left"].map((side) => style[`border${side}Style`] === "none" ? 0 : parseFloat(style[`border${side}Width`]));
  [[left, top, width, thick[0]], [left + width - thick[1], top, thick[1], height], [left, top + height - thick[2], width, thick[2]], [left, top, thick[3], height]]
    .forEach((edge, k) => { c.fillStyle = style[["borderTopColor", "borderRightColor", "borderBottomColor", "borderLeftColor"][k]]; c.fillRect(...edge); });
}

function paintWords(c, style, node) {
  const range = document.createRange();
  for (const { index, 0: word } of node.data.matchAll(/\S+/g)) {
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    const [box] = range.getClientRects();
    if (box) paintWord(c, style, word, box.left, box.top);
  }
}

function paintWord(c, style, word, left, top) {
  c.font = `${style.fontStyle} ${style.fontWeight} ${style.fontSize} ${style.fontFamily}`; // `font` is empty for tabular figures
  c.fillStyle = style.color;
  c.fillText(word, left, top + c.measureText(word).fontBoundingBoxAscent);
}

// An SVG as an image: its styles come from the page, so they are written into a copy.
async function imageOf(svg) {
  const copy = svg.cloneNode(true), from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((element, k) => {
    const style = getComputedStyle(element);
    for (const key of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font", "text-anchor", "paint-order"]) to[k].style.setProperty(key, style.getPropertyValue(key));
  });
  copy.setAttribute("width", svg.clientWidth);
  copy.setAttribute("height", svg.clientHeight);
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(copy));
  await image.decode();
  return image;
}
