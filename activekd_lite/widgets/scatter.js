// Panels that show the same points: hovering rings a point in all panels, a lasso selects in all. Whatever follows the mouse
// is drawn here, without the kernel. Points are drawn once per change, from cached pictures of each symbol and colour.
const PALE = "#D4D4D4", INK = "#222222", HEIGHT = 440, REACH = 12;

const SHAPES = {
  circle: (c, r) => c.arc(0, 0, r, 0, 7), square: (c, r) => c.rect(-r * .9, -r * .9, r * 1.8, r * 1.8),
  diamond: (c, r) => polygon(c, r * 1.2, 4, 0), "triangle-up": (c, r) => polygon(c, r * 1.2, 3, -Math.PI / 2),
  "triangle-down": (c, r) => polygon(c, r * 1.2, 3, Math.PI / 2), pentagon: (c, r) => polygon(c, r * 1.1, 5, -Math.PI / 2),
  cross: (c, r) => plus(c, r, 0), x: (c, r) => plus(c, r, Math.PI / 4),
  star: (c, r) => spikes(c, r * 1.3, 5), hexagram: (c, r) => spikes(c, r * 1.25, 6),
};

function polygon(c, r, corners, turn) {
  for (let k = 0; k < corners; k++) {
    const a = turn + 2 * Math.PI * k / corners;
    c[k ? "lineTo" : "moveTo"](r * Math.cos(a), r * Math.sin(a));
  }
  c.closePath();
}

function spikes(c, r, n) {
  for (let k = 0; k < 2 * n; k++) {
    const a = -Math.PI / 2 + Math.PI * k / n, d = k % 2 ? r * .45 : r;
    c[k ? "lineTo" : "moveTo"](d * Math.cos(a), d * Math.sin(a));
  }
  c.closePath();
}

function plus(c, r, turn) {
  c.rotate(turn);
  c.rect(-r * 1.15, -r * .4, r * 2.3, r * .8);
  c.rect(-r * .4, -r * 1.15, r * .8, r * 2.3);
}

function sprite(colour, symbol, radius, scale) {
  const side = Math.ceil(3.2 * radius), picture = document.createElement("canvas");
  picture.width = picture.height = side * scale;
  const c = picture.getContext("2d");
  c.scale(scale, scale);
  c.translate(side / 2, side / 2);
  c.fillStyle = colour;
  c.beginPath();
  (SHAPES[symbol] || SHAPES.circle)(c, radius);
  c.fill();
  return [picture, side];
}

const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const shorts = (view) => new Int16Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

class Panel {
  constructor(place, model, all, root) {
    Object.assign(this, { place, model, all, zoom: 1, move: [0, 0], path: null });
    this.box = document.createElement("div");
    this.box.className = "akd-panel";
    this.title = this.box.appendChild(document.createElement("div"));
    this.title.className = "akd-title";
    this.field = this.box.appendChild(document.createElement("div"));
    this.field.className = "akd-field";
    this.field.tabIndex = 0;
    this.field.setAttribute("role", "application");
    this.field.setAttribute("data-lm-suppress-shortcuts", "true"); // otherwise JupyterLab handles the arrow keys
    [this.under, this.over] = [0, 1].map(() => this.field.appendChild(document.createElement("canvas")));
    root.appendChild(this.box);
    this.listen();
  }

  // Map data to pixels: the range fills the field and keeps its proportions.
  measure() {
    const { x, y } = this.all.ranges[this.place], width = this.field.clientWidth, height = HEIGHT;
    const scale = Math.min(width / (x[1] - x[0]), height / (y[1] - y[0])) * this.zoom;
    Object.assign(this, { width, height, scale });
    this.at = (i) => [width / 2 + this.move[0] + scale * (this.xy[2 * i] - (x[0] + x[1]) / 2),
      height / 2 + this.move[1] - scale * (this.xy[2 * i + 1] - (y[0] + y[1]) / 2)];
    this.to = (u, v) => [width / 2 + this.move[0] + scale * (u - (x[0] + x[1]) / 2),
      height / 2 + this.move[1] - scale * (v - (y[0] + y[1]) / 2)];
  }

  draw() {
    this.xy = this.all.xys[this.place];
    this.measure();
    const ratio = window.devicePixelRatio || 1, { groups, size, sprites } = this.all, of = groups[this.place] || groups[0];
    for (const canvas of [this.under, this.over]) {
      canvas.width = this.width * ratio;
      canvas.height = this.height * ratio;
      canvas.style.width = this.width + "px";
      canvas.style.height = this.height + "px";
    }
    const c = this.under.getContext("2d"), chosen = this.all.chosen, some = chosen.size > 0;
    c.scale(ratio, ratio);
    this.lines(c);
    this.pixels = new Float32Array(this.xy.length);
    for (let i = 0; i < of.length; i++) [this.pixels[2 * i], this.pixels[2 * i + 1]] = this.at(i);
    for (const layer of some ? [false, true] : [true]) {
      c.globalAlpha = layer ? .8 : .12;
      for (let i = 0; i < of.length; i++) {
        const x = this.pixels[2 * i], y = this.pixels[2 * i + 1];
        if (x !== x || (some && chosen.has(i) !== layer)) continue;
        const [picture, side] = sprites(of[i], size);
        c.drawImage(picture, x - side / 2, y - side / 2, side, side);
      }
    }
    c.globalAlpha = 1;
    this.marks(c);
    this.title.textContent = this.model.get("titles")[this.place] || "";
    this.field.setAttribute("aria-label", this.model.get("alt"));
    this.overlay();
  }

  lines(c) {
    for (const [u0, v0, u1, v1, kind] of (this.model.get("lines")[this.place] || [])) {
      c.beginPath();
      c.strokeStyle = kind === "half" ? "#BBBBBB" : "#444444";
      c.setLineDash(kind === "half" ? [3, 4] : []);
      c.moveTo(...this.to(u0, v0));
      c.lineTo(...this.to(u1, v1));
      c.stroke();
    }
    c.setLineDash([]);
    c.fillStyle = INK;
    c.font = "bold 15px Helvetica, Arial, sans-serif";
    c.textAlign = "center";
    for (const [u, v, text, below] of (this.model.get("labels")[this.place] || [])) {
      const [x, y] = this.to(u, v), half = c.measureText(text).width / 2 + 4;
      c.fillText(text, Math.min(Math.max(x, half), this.width - half), y + (below ? 24 : -14));
    }
  }

  marks(c) {
    const { cross = [], ring = [] } = this.model.get("marks")[this.place] || {};
    for (const [width, colour] of [[5, "#FFFFFF"], [2.5, "#D55E00"]]) {
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.beginPath();
      for (const i of cross) {
        const [x, y] = this.at(i);
        c.moveTo(x - 5, y - 5), c.lineTo(x + 5, y + 5), c.moveTo(x - 5, y + 5), c.lineTo(x + 5, y - 5);
      }
      c.stroke();
    }
    for (const i of ring) this.ring(c, i, 11, "#AA3377", 4);
    c.lineWidth = 1;
  }

  ring(c, i, radius, colour, width) {
    const [x, y] = this.at(i);
    if (x !== x) return;
    c.beginPath();
    c.arc(x, y, radius, 0, 7);
    c.lineWidth = width + 2;
    c.strokeStyle = "#FFFFFF";
    c.stroke();
    c.lineWidth = width;
    c.strokeStyle = colour;
    c.stroke();
  }

  // Draw what follows the mouse: the ring and the lasso.
  overlay() {
    const c = this.over.getContext("2d"), ratio = window.devicePixelRatio || 1;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.width, this.height);
    if (this.all.hovered >= 0) this.ring(c, this.all.hovered, 9, INK, 3);
    if (this.path) {
      c.beginPath();
      this.path.forEach((p, k) => c[k ? "lineTo" : "moveTo"](...p));
      c.fillStyle = "rgba(0, 114, 178, .12)";
      c.strokeStyle = "#0072B2";
      c.lineWidth = 2;
      c.fill();
      c.stroke();
    }
  }

  nearest(x, y) {
    let best = -1, least = REACH * REACH;
    for (let i = 0; i < this.pixels.length / 2; i++) {
      const d = (this.pixels[2 * i] - x) ** 2 + (this.pixels[2 * i + 1] - y) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  }

  inside() {
    const p = this.path, found = [];
    for (let i = 0; i < this.pixels.length / 2; i++) {
      const x = this.pixels[2 * i], y = this.pixels[2 * i + 1];
      let odd = false;
      for (let a = 0, b = p.length - 1; a < p.length; b = a++)
        if ((p[a][1] > y) !== (p[b][1] > y) && x < (p[b][0] - p[a][0]) * (y - p[a][1]) / (p[b][1] - p[a][1]) + p[a][0]) odd = !odd;
      if (odd) found.push(i);
    }
    return found;
  }

  listen() {
    const field = this.field, spot = (e) => { const b = field.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
    field.addEventListener("pointermove", (e) => {
      if (!this.path) return this.all.hover(this.nearest(...spot(e)), e);
      this.path.push(spot(e));
      this.overlay();
    });
    field.addEventListener("pointerleave", () => this.all.leave());
    field.addEventListener("pointerdown", (e) => {
      if (e.button) return;
      field.setPointerCapture(e.pointerId);
      this.path = [spot(e)];
      this.all.leave();
    });
    field.addEventListener("pointerup", (e) => {
      if (!this.path) return;
      const found = this.path.length > 3 ? this.inside() : [this.nearest(...spot(e))].filter((i) => i >= 0);
      this.path = null;
      this.overlay();
      this.all.choose(e.shiftKey ? [...this.all.chosen, ...found] : found);
    });
    field.addEventListener("dblclick", () => { [this.zoom, this.move] = [1, [0, 0]]; this.draw(); });
    field.addEventListener("wheel", (e) => {
      if (document.activeElement !== field) return; // scroll the page unless this panel has the focus
      e.preventDefault();
      const [x, y] = spot(e), by = e.deltaY < 0 ? 1.25 : .8, to = Math.min(60, Math.max(1, this.zoom * by)), real = to / this.zoom;
      this.move = to === 1 ? [0, 0] : [x - this.width / 2 - real * (x - this.width / 2 - this.move[0]),
        y - this.height / 2 - real * (y - this.height / 2 - this.move[1])];
      this.zoom = to;
      this.draw();
    }, { passive: false });
    field.addEventListener("keydown", (e) => this.key(e));
  }

  key(e) {
    const n = this.pixels.length / 2, { hovered, chosen } = this.all;
    if (e.key === "Escape") this.all.choose([]);
    else if (e.key === " " && hovered >= 0) this.all.choose(chosen.has(hovered) ? [...chosen].filter((i) => i !== hovered) : [...chosen, hovered]);
    else if (e.key === "ArrowRight") this.all.hover((hovered + 1) % n);
    else if (e.key === "ArrowLeft") this.all.hover((Math.max(hovered, 0) + n - 1) % n);
    else return;
    e.preventDefault();
    e.stopPropagation();
  }
}

function render({ model, el }) {
  const root = el.appendChild(document.createElement("div")), key = document.createElement("div"), tip = document.createElement("div");
  root.className = "akd-scatter";
  key.className = "akd-key";
  tip.className = "akd-tip";
  const ahead = new Image(); // decode it before the first hover
  ahead.src = model.get("sheet").sheet || "data:,";
  const all = { chosen: new Set(), hovered: -1, panels: [] };
  let sent = null;

  function read() {
    all.xys = model.get("xys").map(floats);
    all.groups = model.get("groups").map(shorts);
    all.size = model.get("size");
    all.ranges = all.xys.map((xy, k) => model.get("ranges")[k] || around(xy));
    const looks = model.get("looks"), made = {}, ratio = window.devicePixelRatio || 1;
    all.sprites = (g, size) => made[g] || (made[g] = sprite(...(g < 0 ? [PALE, "circle"] : looks[g]), size, ratio));
    all.chosen = new Set(model.get("selected"));
  }
  function around(xy) {
    let [a, b, c, d] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < xy.length; i += 2) if (xy[i] === xy[i]) {
      a = Math.min(a, xy[i]), b = Math.max(b, xy[i]), c = Math.min(c, xy[i + 1]), d = Math.max(d, xy[i + 1]);
    }
    const edge = .04 * Math.max(b - a, d - c, 1e-9);
    return { x: [a - edge, b + edge], y: [c - edge, d + edge] };
  }
  function draw() {
    all.panels.forEach((panel) => panel.draw());
    key.replaceChildren(...model.get("legend").map(([name, look]) => {
      const item = document.createElement("span"), [picture] = sprite(...look, 6, 2);
      picture.style.cssText = "width:20px;height:20px;vertical-align:middle";
      item.append(picture, name);
      return item;
    }));
  }
  function later() {
    cancelAnimationFrame(all.frame);
    all.frame = requestAnimationFrame(() => { read(); draw(); });
  }

  all.hover = (i, event) => {
    if (i !== all.hovered) {
      all.hovered = i;
      all.panels.forEach((panel) => panel.overlay());
      if (i >= 0) {
        clearTimeout(sent);
        sent = setTimeout(() => { model.set("hovered", i); model.save_changes(); }, 25); // skip points that the mouse only passes over
      }
    }
    showTip(i, event);
  };
  all.leave = () => all.hover(-1);
  all.choose = (indices) => {
    all.chosen = new Set(indices);
    all.panels.forEach((panel) => panel.draw());
    model.set("selected", [...all.chosen].sort((a, b) => a - b));
    model.save_changes();
  };
  function showTip(i, event) {
    const sheet = model.get("sheet");
    if (i < 0 || !event || !sheet.sheet || i % sheet.step) return void (tip.style.display = "none");
    const tile = i / sheet.step, side = 80, box = root.getBoundingClientRect();
    Object.assign(tip.style, { display: "block", left: Math.min(event.clientX - box.left + 16, box.width - side - 6) + "px",
      top: Math.max(0, event.clientY - box.top - side - 14) + "px", backgroundImage: `url(${sheet.sheet})`,
      backgroundSize: sheet.columns * side + "px auto",
      backgroundPosition: `${-(tile % sheet.columns) * side}px ${-Math.floor(tile / sheet.columns) * side}px` });
  }

  const row = root.appendChild(document.createElement("div"));
  row.className = "akd-row";
  all.panels = model.get("xys").map((_, place) => new Panel(place, model, all, row));
  root.append(key, tip);
  read();
  const seen = new ResizeObserver(() => { if (root.clientWidth) draw(); });
  seen.observe(root);
  model.on("change:xys change:groups change:looks change:legend change:titles change:labels change:marks change:selected change:alt", later);
  model.on("change:hovered", () => { if (all.hovered !== model.get("hovered")) { all.hovered = model.get("hovered");
    all.panels.forEach((panel) => panel.overlay()); } });
  return () => { seen.disconnect(); cancelAnimationFrame(all.frame); clearTimeout(sent); };
}

export default { render };
