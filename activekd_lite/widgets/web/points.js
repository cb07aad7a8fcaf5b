// Panels that show the same N points: hovering rings a point in all, a lasso selects in all. Whatever follows the mouse is
// drawn here, without the kernel. Up to DENSE points each is a symbol; more are a raster of pixels.
const DENSE = 20000, REACH = 14, NEAR = 150; // NEAR: so few in view are drawn as pictures when zoomed in
const HOLD = 350, STILL = 10; // a finger that stays for HOLD milliseconds within STILL pixels starts a lasso; before, it scrolls the page
// Rows of the card of keys for all panels.
const FINGERS = [["hold a finger, then drag", "lasso; a short drag scrolls the page"], ["two fingers", "zoom and move"]];

const SHAPES = {
  circle: (c, r) => c.arc(0, 0, r, 0, 7), square: (c, r) => c.rect(-r * .9, -r * .9, r * 1.8, r * 1.8),
  diamond: (c, r) => polygon(c, r * 1.2, 4, 0), "triangle-up": (c, r) => polygon(c, r * 1.2, 3, -Math.PI / 2),
  "triangle-down": (c, r) => polygon(c, r * 1.2, 3, Math.PI / 2), pentagon: (c, r) => polygon(c, r * 1.1, 5, -Math.PI / 2),
  cross: (c, r) => plus(c, r, 0), x: (c, r) => plus(c, r, Math.PI / 4),
  star: (c, r) => spikes(c, r * 1.3, 5), hexagram: (c, r) => spikes(c, r * 1.25, 6),
  ring: (c, r) => { c.arc(0, 0, r, 0, 7); c.moveTo(r * .55, 0); c.arc(0, 0, r * .55, 0, 7, true); },
};
// Kinds of marks: colours by their name in the theme.
const MARKS = { start: ["ink", "x"], pick: ["accent", "ring"], next: ["hot", "star"], own: ["good", "diamond"], hot: ["hot", "ring"] };

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
  const [a, b] = [r * 1.15, r * .4], corners = [[-b, -a], [b, -a], [b, -b], [a, -b], [a, b], [b, b], [b, a], [-b, a], [-b, b], [-a, b], [-a, -b], [-b, -b]];
  corners.forEach(([x, y], k) => c[k ? "lineTo" : "moveTo"](x * Math.cos(turn) - y * Math.sin(turn), x * Math.sin(turn) + y * Math.cos(turn)));
  c.closePath();
}

// A symbol as a canvas with its side in pixels, drawn once per colour and theme.
const sprites = new Map();
function sprite(colour, symbol, radius, scale, theme, halo = 0) {
  const key = [colour, symbol, radius, scale, theme.ink, theme.paper, halo].join();
  if (sprites.has(key)) return sprites.get(key);
  const side = Math.ceil(3.2 * radius + 2 * halo + 2), picture = document.createElement("canvas");
  picture.width = picture.height = side * scale;
  const c = picture.getContext("2d"), { fill, edge } = paintOf(theme[colour] || colour, theme);
  c.scale(scale, scale);
  c.translate(side / 2, side / 2);
  c.lineJoin = "round";
  c.beginPath();
  (SHAPES[symbol] || SHAPES.circle)(c, radius);
  if (halo) { c.strokeStyle = theme.paper; c.lineWidth = 2 * halo; c.stroke(); }
  c.fillStyle = fill;
  c.fill();
  c.strokeStyle = edge;
  c.lineWidth = 1;
  c.stroke();
  sprites.set(key, [picture, side]);
  return sprites.get(key);
}

// Bit masks, as numpy.packbits(bitorder="little") writes them.
function packed(mask) {
  const bits = new Uint8Array(Math.ceil(mask.length / 8));
  for (let i = 0; i < mask.length; i++) if (mask[i]) bits[i >> 3] |= 1 << (i & 7);
  return bits;
}

function unpacked(view, count) {
  const mask = new Uint8Array(count);
  if (view) for (let i = 0; i < Math.min(count, 8 * view.byteLength); i++) mask[i] = (view.getUint8(i >> 3) >> (i & 7)) & 1;
  return mask;
}

function linked(S, { count, onHover, onChoose, caption } = {}) {
  const { model } = S, L = { S, count, hovered: -1, panels: [], off: new Set(), shown: null, chosen: unpacked(model.get("chosen"), count), caption };
  const tip = make("div", "tip", S.root), picture = make("img", "", tip, { width: 96, height: 96, alt: "" }), words = make("span", "", tip);
  let sent = null;
  const some = () => L.chosen.some(Boolean);
  L.some = some();
  L.size = count < 3000 ? 3.5 : count < 8000 ? 2.6 : 2;
  L.draw = () => L.panels.forEach((panel) => panel.later());
  L.hidden = (groups) => { L.off = groups; L.draw(); };
  L.only = (mask) => { L.shown = mask; L.draw(); }; // Uint8Array(N), or null for all
  L.panel = (parent, options) => { const panel = new Panel(L, parent, options); L.panels.push(panel); return panel; };
  L.hover = (i, event, panel) => {
    if (i !== L.hovered) {
      L.hovered = i;
      L.panels.forEach((p) => p.overlay());
      onHover?.(i);
      clearTimeout(sent);
      if (i >= 0) sent = setTimeout(() => { model.set("hovered", i); model.save_changes(); }, 25); // skips points passed over
    }
    showTip(i, event, panel);
  };
  L.choose = (indices) => {
    const mask = indices instanceof Uint8Array ? indices : new Uint8Array(count);
    if (mask !== indices) for (const i of indices) mask[i] = 1;
    L.chosen = mask;
    L.some = some();
    const bits = L.some ? packed(mask) : new Uint8Array(0);
    model.set("chosen", new DataView(bits.buffer));
    model.save_changes(); // the kernel works while the page draws
    L.draw();
    onChoose?.(mask);
  };
  L.reset = () => { L.panels.forEach((panel) => { [panel.zoom, panel.move] = [1, [0, 0]]; }); L.choose([]); };
  const showTip = async (i, event, panel) => {
    if (i < 0 || !panel) return void (tip.style.display = "none");
    const source = await S.picture(i);
    if (i !== L.hovered) return;
    picture.src = source;
    words.textContent = L.caption ? L.caption(i) : `image ${i}`;
    const field = panel.field.getBoundingClientRect(), box = S.root.getBoundingClientRect(), [x, y] = panel.at(i);
    const left = (event ? event.clientX : field.left + x) - box.left + 18, top = (event ? event.clientY : field.top + y) - box.top - 120;
    tip.style.display = "block";
    tip.style.left = Math.max(0, left + tip.offsetWidth > box.width ? left - tip.offsetWidth - 36 : left) + "px";
    tip.style.top = Math.max(0, top) + "px";
  };
  S.listen(model, "change:chosen", () => {
    const view = model.get("chosen"), bits = L.some ? packed(L.chosen) : new Uint8Array(0);
    if (view.byteLength === bits.length && bits.every((b, k) => b === view.getUint8(k))) return;
    L.chosen = unpacked(view, count);
    L.some = some();
    L.draw();
    onChoose?.(L.chosen);
  });
  S.listen(model, "change:hovered", () => {
    if (L.hovered === model.get("hovered")) return;
    L.hovered = model.get("hovered");
    L.panels.forEach((panel) => panel.overlay());
  });
  S.onTheme(L.draw);
  S.onSize(() => { tip.style.display = "none"; L.panels.forEach((panel) => panel.draw()); });
  S.listen(document, "fullscreenchange", () => setTimeout(L.draw, 100));
  S.cleanup(() => clearTimeout(sent));
  S.sheet.ready.then(L.draw);
  return L;
}

class Panel {
  constructor(L, parent, { title = "", height = 420, label = "" } = {}) {
    Object.assign(this, { L, S: L.S, height: height, zoom: 1, move: [0, 0], path: null, o: { xy: new Float32Array(0), looks: [] }, images: new Map() });
    this.box = make("div", "panel", parent);
    this.title = make("div", "title", this.box, { textContent: title });
    this.field = make("div", "field", this.box, { tabIndex: 0, role: "application", "aria-label": label || title });
    [this.under, this.over] = [0, 1].map(() => make("canvas", "", this.field, { "aria-hidden": "true" }));
    this.S.cleanup(() => cancelAnimationFrame(this.waiting));
    this.listen();
  }

  // A control that lies on the panel: its events are its own.
  hold(element) {
    this.field.append(element);
    for (const event of ["pointerdown", "pointerup", "pointermove", "keydown", "dblclick", "wheel"]) element.addEventListener(event, (e) => e.stopPropagation());
  }

  set(options) {
    Object.assign(this.o, options);
    if (options.title !== undefined) this.title.textContent = options.title;
    if (options.label !== undefined) this.field.setAttribute("aria-label", options.label);
    this.later();
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => this.draw());
  }

  // Map data to pixels: the range fills the field and keeps its proportions.
  measure() {
    const full = document.fullscreenElement === this.S.root, width = this.field.clientWidth;
    const least = full ? Math.max(this.height, innerHeight - 330) : Math.min(this.height, Math.max(240, .95 * width));
    if (this.field.style.height !== least + "px") this.field.style.height = least + "px";
    const { x, y } = this.o.range || around(this.o.xy), height = least;
    const scale = Math.min(width / (x[1] - x[0]), height / (y[1] - y[0])) * this.zoom;
    const left = width / 2 + this.move[0] - scale * (x[0] + x[1]) / 2, bottom = height / 2 + this.move[1] + scale * (y[0] + y[1]) / 2;
    Object.assign(this, { width, tall: height, scale, left, bottom });
    this.to = (u, v) => [left + scale * u, bottom - scale * v];
    this.at = (i) => this.to(this.o.xy[2 * i], this.o.xy[2 * i + 1]);
    this.from = (px, py) => [(px - left) / scale, (bottom - py) / scale];
  }

  draw() {
    cancelAnimationFrame(this.waiting);
    this.waiting = 0;
    if (!this.field.clientWidth) return;
    this.measure();
    const ratio = this.S.pixels();
    for (const canvas of [this.under, this.over]) {
      const [w, h] = [Math.round(this.width * ratio), Math.round(this.tall * ratio)];
      if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
      canvas.style.width = this.width + "px";
      canvas.style.height = this.tall + "px";
    }
    const c = this.under.getContext("2d"), { xy } = this.o, n = xy.length / 2;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.under.width, this.under.height);
    if (!this.pixels || this.pixels.length !== xy.length) this.pixels = new Float32Array(xy.length);
    for (let i = 0; i < 2 * n; i += 2) {
      this.pixels[i] = this.left + this.scale * xy[i];
      this.pixels[i + 1] = this.bottom - this.scale * xy[i + 1];
    }
    if (n > DENSE) this.raster(c, ratio); // replaces all pixels, so it comes first
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.o.under?.(c, this.to, this);
    this.lines(c);
    if (n <= DENSE) this.symbols(c, ratio);
    this.arrows(c);
    this.thumbnails(c);
    this.marks(c, ratio);
    this.o.over?.(c, this.to, this);
    this.overlay();
  }

  // Whether the point i is drawn at all: on the map, of a group that the legend shows.
  visible(i) {
    const { off, shown } = this.L, { groups } = this.o, x = this.pixels[2 * i];
    return x === x && !(off.size && groups && off.has(groups[i])) && !(shown && !shown[i]);
  }

  // Each point in its symbol; the more points share a place, the lighter each is.
  symbols(c, ratio) {
    const { chosen, some, size } = this.L, { groups, looks } = this.o, { theme } = this.S, p = this.pixels, n = p.length / 2;
    const cell = 3 * size, columns = Math.ceil(this.width / cell) + 1, counts = new Uint16Array(columns * (Math.ceil(this.tall / cell) + 1));
    const place = (i) => Math.floor(p[2 * i + 1] / cell) * columns + Math.floor(p[2 * i] / cell);
    const inView = (i) => p[2 * i] >= 0 && p[2 * i] <= this.width && p[2 * i + 1] >= 0 && p[2 * i + 1] <= this.tall;
    const seen = [];
    for (let i = 0; i < n; i++) if (this.visible(i) && inView(i)) { counts[place(i)]++; seen.push(i); }
    this.seen = seen;
    const pale = mixed(theme.paper, theme.ink, .3);
    for (const layer of some ? [0, 1] : [1])
      for (const i of seen) {
        if (some && chosen[i] !== layer) continue;
        const g = groups ? groups[i] : 0, [colour, symbol] = g < 0 ? [pale, "circle"] : looks[g] || [theme.accent, "circle"];
        const [picture, side] = sprite(colour, symbol, size, ratio, theme), crowd = counts[place(i)];
        c.globalAlpha = layer ? Math.max(.3, Math.min(1, 2.2 / Math.sqrt(crowd + 3))) : .15;
        c.drawImage(picture, p[2 * i] - side / 2, p[2 * i + 1] - side / 2, side, side);
      }
    c.globalAlpha = 1;
  }

  // Many points as pixels: the mean colour of the points in a pixel, the more opaque the more there are.
  raster(c, ratio) {
    const { chosen, some, off, shown } = this.L, { groups, looks } = this.o, { theme } = this.S, p = this.pixels, n = p.length / 2;
    const w = this.under.width, h = this.under.height, sums = new Float32Array(4 * w * h), splat = n > 300000 ? 1 : 2;
    const paints = [mixed(theme.paper, theme.ink, .3), ...looks.map(([colour]) => paintOf(theme[colour] || colour, theme).edge)].map(rgbOf);
    const red = Float32Array.from(paints, (v) => v[0]), green = Float32Array.from(paints, (v) => v[1]), blue = Float32Array.from(paints, (v) => v[2]);
    const hide = off.size ? Uint8Array.from(paints, (_, g) => +off.has(g - 1)) : null;
    for (let i = 0; i < n; i++) {
      const x = (p[2 * i] * ratio) | 0, y = (p[2 * i + 1] * ratio) | 0, g = groups ? groups[i] + 1 : 1;
      if (!(p[2 * i] >= 0) || x < 0 || y < 0 || x >= w - 1 || y >= h - 1 || (hide && hide[g]) || (shown && !shown[i])) continue;
      const weight = some && !chosen[i] ? .02 : 1;
      for (let k = 0; k < splat * splat; k++) {
        const at = 4 * ((y + (k >> 1)) * w + x + (k & 1));
        sums[at] += weight * red[g]; sums[at + 1] += weight * green[g]; sums[at + 2] += weight * blue[g]; sums[at + 3] += weight;
      }
    }
    const picture = c.createImageData(w, h), out = picture.data, alpha = Float32Array.from({ length: 65 }, (_, k) => 255 * (1 - .35 ** (k / 4)));
    for (let at = 0; at < sums.length; at += 4) {
      const total = sums[at + 3];
      if (!total) continue;
      out[at] = sums[at] / total; out[at + 1] = sums[at + 1] / total; out[at + 2] = sums[at + 2] / total;
      out[at + 3] = total < 1 ? 255 * Math.min(.5, .12 + total) : alpha[Math.min(64, 4 * total | 0)];
    }
    c.putImageData(picture, 0, 0);
    this.seen = null;
  }

  lines(c) {
    const { theme } = this.S;
    for (const [u0, v0, u1, v1, kind] of this.o.lines || []) {
      c.beginPath();
      c.lineWidth = 1;
      c.strokeStyle = kind === "half" ? theme.faint : theme.line;
      c.setLineDash(kind === "half" ? [3, 4] : []);
      c.moveTo(...this.to(u0, v0));
      c.lineTo(...this.to(u1, v1));
      c.stroke();
    }
    c.setLineDash([]);
    for (const [u, v, text, below] of this.o.labels || []) {
      c.font = "bold 15px Helvetica, Arial, sans-serif";
      c.textAlign = "center";
      const [x, y] = this.to(u, v), half = c.measureText(text).width / 2 + 4;
      this.text(c, text, Math.min(Math.max(x, half), this.width - half), Math.min(y + (below ? 22 : -10), this.tall - 6));
    }
    c.textAlign = "left";
  }

  text(c, text, x, y) {
    const { theme } = this.S;
    c.lineJoin = "round";
    c.lineWidth = 4;
    c.strokeStyle = theme.paper;
    c.strokeText(text, x, y);
    c.fillStyle = theme.ink;
    c.fillText(text, x, y);
  }

  arrows(c) {
    c.strokeStyle = this.S.theme.ink;
    c.globalAlpha = .55;
    for (const [u0, v0, u1, v1] of this.o.arrows || []) {
      const [x0, y0] = this.to(u0, v0), [x1, y1] = this.to(u1, v1), turn = Math.atan2(y1 - y0, x1 - x0), head = Math.min(7, Math.hypot(x1 - x0, y1 - y0) / 2);
      c.beginPath();
      c.lineWidth = 1;
      c.moveTo(x0, y0);
      c.lineTo(x1, y1);
      for (const side of [-.45, .45]) { c.moveTo(x1, y1); c.lineTo(x1 - head * Math.cos(turn + side), y1 - head * Math.sin(turn + side)); }
      c.stroke();
    }
    c.globalAlpha = 1;
  }

  // Pictures in the place of points: of all in view when zoomed in, and of a small selection.
  thumbnails(c) {
    const { L } = this, near = this.zoom > 1 && this.inView(NEAR), few = L.some ? indicesOf(L.chosen, 40) : null;
    const ring = new Set(few || []), shown = near || (few && few.filter((i) => this.visible(i))) || [];
    for (const i of shown) this.tile(c, i, near ? 30 : 22, ring.has(i) ? "hot" : "line");
  }

  inView(most) {
    const p = this.pixels, found = [];
    for (let i = 0; i < p.length / 2; i++)
      if (p[2 * i] >= 0 && p[2 * i] <= this.width && p[2 * i + 1] >= 0 && p[2 * i + 1] <= this.tall && this.visible(i)) {
        if (found.length === most) return null;
        found.push(i);
      }
    return found;
  }

  // One image centred on its point, with a border; drawn again when it has arrived from the kernel.
  tile(c, i, side, border) {
    const { S } = this, [x, y] = this.at(i);
    c.fillStyle = S.theme[border];
    const edge = border === "line" ? 1 : 2;
    if (S.hasTile(i) && S.sheet.strip.complete) {
      const [sx, sy, from] = S.tileOf(i);
      c.fillRect(x - side / 2 - edge, y - side / 2 - edge, side + 2 * edge, side + 2 * edge);
      c.imageSmoothingEnabled = false;
      c.drawImage(S.sheet.strip, sx, sy, from, from, x - side / 2, y - side / 2, side, side);
    } else if (this.images.has(i)) {
      const image = this.images.get(i);
      if (!image.complete) return;
      c.fillRect(x - side / 2 - edge, y - side / 2 - edge, side + 2 * edge, side + 2 * edge);
      c.drawImage(image, x - side / 2, y - side / 2, side, side);
    } else {
      const image = new Image();
      this.images.set(i, image);
      S.picture(i).then((source) => { image.src = source; return image.decode(); }).then(() => this.later(), () => {});
    }
  }

  marks(c, ratio) {
    const { theme } = this.S;
    for (const { index, kind, text, picture } of this.o.marks || []) {
      const [x, y] = this.at(index), [colour, symbol] = MARKS[kind];
      if (x !== x) continue;
      if (picture) this.tile(c, index, 26, colour);
      else {
        const [drawn, side] = sprite(colour, symbol, kind === "next" ? 9 : 7, ratio, theme, 2);
        c.drawImage(drawn, x - side / 2, y - side / 2, side, side);
      }
      c.font = "bold 14px Helvetica, Arial, sans-serif";
      if (text !== undefined) this.text(c, text, x + (picture ? 16 : 10), y - 6);
    }
  }

  // Draw what follows the mouse: the ring and the lasso.
  overlay() {
    if (!this.to) return;
    const c = this.over.getContext("2d"), ratio = this.S.pixels(), { theme } = this.S;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.width, this.tall);
    const ring = ([x, y], radius, tint) => {
      for (const [width, colour] of [[6, theme.paper], [3, tint]]) {
        c.beginPath();
        c.arc(x, y, radius, 0, 7);
        c.lineWidth = width;
        c.strokeStyle = colour;
        c.stroke();
      }
    };
    if (this.L.hovered >= 0) ring(this.at(this.L.hovered), 9, theme.hot);
    if (this.path?.length === 1 && this.ready) ring(this.path[0], 28, theme.accent); // a finger may draw now
    if (this.path) {
      this.trace(c);
      c.strokeStyle = c.fillStyle = theme.accent;
      c.lineWidth = 2;
      c.stroke();
      c.globalAlpha = .15;
      c.fill();
      c.globalAlpha = 1;
    }
  }

  trace(c) {
    c.beginPath();
    this.path.forEach((p, k) => c[k ? "lineTo" : "moveTo"](...p));
    c.closePath();
  }

  nearest(x, y) {
    const p = this.pixels || [];
    let best = -1, least = REACH * REACH;
    for (let i = 0; i < p.length; i += 2) {
      const d = (p[i] - x) ** 2 + (p[i + 1] - y) ** 2;
      if (d < least && this.visible(i / 2)) [best, least] = [i / 2, d];
    }
    return best;
  }

  // The nearest point in a direction (dx, dy), sideways counting double; from the middle if none is ringed.
  neighbour(dx, dy) {
    const p = this.pixels, from = this.L.hovered, here = from >= 0 ? [p[2 * from], p[2 * from + 1]] : [this.width / 2, this.tall / 2];
    let best = from, least = Infinity;
    for (let i = 0; i < p.length / 2; i++) {
      const u = p[2 * i] - here[0], v = p[2 * i + 1] - here[1], along = u * dx + v * dy, aside = Math.abs(u * dy - v * dx);
      const cost = from < 0 ? u * u + v * v : along + 2 * aside;
      if (i === from || (from >= 0 && along <= .01) || cost >= least || !this.visible(i)) continue;
      [best, least] = [i, cost];
    }
    return best;
  }

  // The mask (N,) of the points within the lasso: its area is painted, and each point looks up its pixel.
  inside() {
    const canvas = make("canvas", "", null, { width: Math.ceil(this.width), height: Math.ceil(this.tall) });
    const c = canvas.getContext("2d", { willReadFrequently: true }), p = this.pixels, mask = new Uint8Array(p.length / 2);
    this.trace(c);
    c.fill("evenodd");
    const columns = this.path.map(([x]) => x), rows = this.path.map(([, y]) => y), within = (v, most) => Math.max(0, Math.min(most, v));
    const x0 = within(Math.floor(Math.min(...columns)), canvas.width - 1), x1 = within(Math.ceil(Math.max(...columns)), canvas.width);
    const y0 = within(Math.floor(Math.min(...rows)), canvas.height - 1), y1 = within(Math.ceil(Math.max(...rows)), canvas.height);
    const w = Math.max(1, x1 - x0), area = c.getImageData(x0, y0, w, Math.max(1, y1 - y0)).data;
    for (let i = 0; i < mask.length; i++) {
      const x = p[2 * i], y = p[2 * i + 1];
      if (x >= x0 && x < x1 && y >= y0 && y < y1 && area[4 * (((y - y0) | 0) * w + ((x - x0) | 0)) + 3] > 127 && this.visible(i)) mask[i] = 1;
    }
    return mask;
  }

  zoomAt(x, y, by) {
    const to = Math.min(80, Math.max(1, this.zoom * by)), real = to / this.zoom;
    this.move = to === 1 ? [0, 0] : [x - this.width / 2 - real * (x - this.width / 2 - this.move[0]), y - this.tall / 2 - real * (y - this.tall / 2 - this.move[1])];
    this.zoom = to;
    this.draw();
  }

  listen() {
    const { field, L } = this, fingers = new Map();
    const spot = (e) => { const b = field.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
    const spread = () => { const [a, b] = [...fingers.values()]; return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, Math.hypot(a[0] - b[0], a[1] - b[1])]; };
    field.addEventListener("pointermove", (e) => {
      const here = spot(e), before = fingers.get(e.pointerId);
      if (fingers.size === 2 && before) { // two fingers: zoom and move
        const [x0, y0, d0] = spread();
        fingers.set(e.pointerId, here);
        const [x, y, d] = spread();
        if (this.zoom > 1) this.move = [this.move[0] + x - x0, this.move[1] + y - y0];
        return this.zoomAt(x, y, d / Math.max(d0, 1));
      }
      if (before) fingers.set(e.pointerId, here);
      if (this.drag) {
        this.move = [this.move[0] + here[0] - this.drag[0], this.move[1] + here[1] - this.drag[1]];
        this.drag = here;
        return this.later();
      }
      if (this.held && Math.hypot(here[0] - this.held[0], here[1] - this.held[1]) > STILL) release();
      if (!this.path) return (e.pointerType === "mouse" || !e.buttons) && L.hover(this.nearest(...here), e, this);
      this.path.push(here);
      this.overlay();
    });
    field.addEventListener("pointerleave", (e) => e.pointerType !== "touch" && L.hover(-1)); // a lifted finger leaves, too
    field.addEventListener("contextmenu", (e) => (this.zoom > 1 || fingers.size) && e.preventDefault());
    field.addEventListener("pointerdown", (e) => {
      field.setPointerCapture(e.pointerId);
      if (e.button) return void (this.drag = this.zoom > 1 ? spot(e) : null);
      fingers.set(e.pointerId, spot(e));
      this.path = null;
      release();
      if (fingers.size === 1) e.pointerType === "mouse" ? (this.path = [spot(e)]) : hold(spot(e));
      L.hover(-1);
    });
    // A finger: it scrolls the page, unless it stayed in its place first; two zoom.
    const hold = (at) => {
      this.held = at;
      this.holding = setTimeout(() => { Object.assign(this, { held: null, ready: true, path: [at] }); this.overlay(); }, HOLD);
    };
    const release = () => { clearTimeout(this.holding); Object.assign(this, { held: null, ready: false }); };
    this.S.cleanup(release);
    field.addEventListener("touchmove", (e) => (this.path || fingers.size > 1) && e.preventDefault(), { passive: false });
    const up = (e) => {
      const tapped = this.held && e.type === "pointerup";
      release();
      fingers.delete(e.pointerId);
      this.drag = null;
      if (tapped) this.path = [spot(e)];
      if (!this.path) return this.overlay();
      const lasso = this.path.length > 3, i = lasso ? -1 : this.nearest(...spot(e)), mask = lasso ? this.inside() : new Uint8Array(L.count);
      this.path = null;
      this.overlay();
      if (e.type === "pointercancel" || (i >= 0 && this.o.onPoint?.(i, e))) return;
      if (i >= 0) mask[i] = 1;
      if (e.shiftKey) for (let k = 0; k < L.count; k++) mask[k] |= L.chosen[k];
      L.choose(mask);
      if (e.pointerType !== "mouse" && i >= 0) L.hover(i, e, this);
    };
    field.addEventListener("pointerup", up);
    field.addEventListener("pointercancel", up);
    field.addEventListener("dblclick", () => { [this.zoom, this.move] = [1, [0, 0]]; this.draw(); });
    field.addEventListener("wheel", (e) => {
      if (document.activeElement !== field && !e.ctrlKey) return; // scroll the page unless this panel has the focus
      e.preventDefault();
      this.zoomAt(...spot(e), e.deltaY < 0 ? 1.25 : .8);
    }, { passive: false });
    field.addEventListener("keydown", (e) => this.key(e));
  }

  key(e) {
    const { L } = this, i = L.hovered, way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    const to = i >= 0 ? this.at(i) : [this.width / 2, this.tall / 2];
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (way) L.hover(this.neighbour(...way), null, this);
    else if (e.key === "Escape") { L.hover(-1); L.choose([]); }
    else if ((e.key === " " || e.key === "Enter") && i >= 0) {
      if (this.o.onPoint?.(i, e)) return stop(e);
      const mask = L.chosen.slice();
      mask[i] = 1 - mask[i];
      L.choose(mask);
    } else if (e.key === "+" || e.key === "=") this.zoomAt(...to, 1.25);
    else if (e.key === "-") this.zoomAt(...to, .8);
    else if (e.key === "0") { [this.zoom, this.move] = [1, [0, 0]]; this.draw(); }
    else return;
    stop(e);
  }
}

function stop(e) {
  e.preventDefault();
  e.stopPropagation();
}

function indicesOf(mask, most) {
  const found = [];
  for (let i = 0; i < mask.length; i++) if (mask[i] && found.push(i) > most) return null;
  return found;
}

function around(xy) {
  let [a, b, c, d] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < xy.length; i += 2) if (xy[i] === xy[i]) {
    if (xy[i] < a) a = xy[i];
    if (xy[i] > b) b = xy[i];
    if (xy[i + 1] < c) c = xy[i + 1];
    if (xy[i + 1] > d) d = xy[i + 1];
  }
  if (a > b) [a, b, c, d] = [0, 1, 0, 1];
  const edge = .04 * Math.max(b - a, d - c, 1e-9);
  return { x: [a - edge, b + edge], y: [c - edge, d + edge] };
}

// Greedy k-center over the rows of probs (n x size), as in kcenter.py: each pick is the row farthest from the nearest of `start` and the
// picks before it, the lowest row of equals. With `given`, these rows are the picks. `near` has squared distances to the nearest centre;
// onPick is called with them before the first pick and after each. next: the pick that would follow, -1 if there is none.
function cover(probs, size, start, most, given = null, onPick = () => {}) {
  const n = probs.length / size, near = new Float64Array(n).fill(Infinity), from = new Int32Array(n), taken = new Uint8Array(n);
  const found = { picks: [], nearest: [], gaps: [], radii: [] };
  const add = (b) => {
    taken[b] = 1;
    for (let i = 0; i < n; i++) {
      let d = 0;
      for (let c = 0; c < size; c++) d += (probs[i * size + c] - probs[b * size + c]) ** 2;
      if (d < near[i]) { near[i] = d; from[i] = b; }
    }
  };
  const farthest = () => { let best = -1; for (let i = 0; i < n; i++) if (!taken[i] && (best < 0 || near[i] > near[best])) best = i; return best; };
  const note = () => { found.radii.push(Math.sqrt(near.reduce((a, b) => Math.max(a, b), 0))); onPick(near); };
  start.forEach(add);
  note();
  for (let k = 0; k < (given ? given.length : most); k++) {
    const pick = given ? given[k] : farthest();
    if (pick < 0) break;
    found.picks.push(pick);
    found.nearest.push(from[pick]);
    found.gaps.push(Math.sqrt(near[pick]));
    add(pick);
    note();
  }
  return { ...found, near, next: given ? -1 : farthest() };
}
