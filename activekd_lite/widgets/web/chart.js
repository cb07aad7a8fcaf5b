// A line chart as themed SVG: direct labels at the ends of the lines, horizontal rules, a marker at `at`.
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, parent, attributes = {}, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

// Round ticks (value, text): at most `most` of them in [low, high].
function ticks(low, high, most) {
  const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step) found.push(+v.toPrecision(12));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((v) => [v, v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })]);
}

function chart(S, parent, options) {
  let o = { height: 220, x: "", y: "", lines: [], rules: [], at: null, zero: false, ...options };
  const root = svg("svg", parent, { class: "akd-chart", role: "img" });
  const title = svg("title", root), drawing = svg("g", root);
  let map = null;

  const described = () => `${o.y} against ${o.x}. ` + [
    ...o.lines.filter((l) => l.xs.length).map((l) => `${l.name}: ${format(l.ys[0])} at ${format(l.xs[0])} to ${format(l.ys.at(-1))} at ${format(l.xs.at(-1))}`),
    ...o.rules.map((r) => `${r.name}: ${format(r.y)}`)].join("; ");
  const format = (v) => Math.abs(v) >= 100 || Number.isInteger(v) ? Math.round(v).toLocaleString("en") : v.toPrecision(3);

  function extent() {
    const xs = o.lines.flatMap((l) => [...l.xs]), ys = [...o.lines.flatMap((l) => [...l.ys]), ...o.rules.map((r) => r.y)].filter(Number.isFinite);
    const [x0, x1] = o.xRange || [Math.min(...xs, ...(o.zero ? [0] : [])), Math.max(...xs)];
    let [y0, y1] = o.yRange || [o.zero ? 0 : Math.min(...ys), Math.max(...ys)];
    if (!(y1 > y0)) [y0, y1] = Number.isFinite(y0) ? [y0 - (o.zero ? 0 : 1), y0 + 1] : [0, 1];
    if (!o.yRange) { const room = .06 * (y1 - y0); y1 += room; y0 -= o.zero ? 0 : room; }
    return { x: x1 > x0 ? [x0, x1] : Number.isFinite(x0) ? [x0 - .5, x0 + .5] : [0, 1], y: [y0, y1] };
  }

  function draw() {
    const width = Math.max(220, Math.round(parent.clientWidth || 400)), { height } = o, { x: [x0, x1], y: [y0, y1] } = extent();
    root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    root.style.height = height + "px";
    title.textContent = described();
    root.setAttribute("aria-label", title.textContent);
    const names = [...o.lines.map((l) => l.name), ...o.rules.map((r) => r.name)];
    const room = Math.min(.36 * width, 14 + 7.2 * Math.max(0, ...names.map((n) => n.length)));
    const yTicks = ticks(y0, y1, Math.max(2, height / 45)), left = 28 + 8 * Math.max(...yTicks.map(([, text]) => text.length)), box = { left, right: width - room, top: 8, bottom: height - 42 };
    const px = (v) => box.left + (v - x0) / (x1 - x0) * (box.right - box.left), py = (v) => box.bottom - (v - y0) / (y1 - y0) * (box.bottom - box.top);
    map = { x0, x1, box, width };
    drawing.replaceChildren();
    for (const [v, text] of yTicks) {
      svg("line", drawing, { class: "akd-grid", x1: box.left, x2: box.right, y1: py(v), y2: py(v) });
      svg("text", drawing, { x: box.left - 6, y: py(v) + 4, "text-anchor": "end" }, text);
    }
    const whole = o.lines.every((l) => [...l.xs].every(Number.isInteger));
    for (const [v, text] of ticks(x0, x1, Math.max(2, width / 80))) if (!whole || Number.isInteger(v))
      svg("text", drawing, { x: px(v), y: box.bottom + 17, "text-anchor": "middle" }, whole ? v.toLocaleString("en") : text);
    svg("line", drawing, { class: "akd-axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
    svg("text", drawing, { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, o.x);
    svg("text", drawing, { transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, o.y);
    const ends = [];
    for (const rule of o.rules) {
      svg("line", drawing, { x1: box.left, x2: box.right, y1: py(rule.y), y2: py(rule.y), stroke: S.theme.muted, "stroke-width": 2, "stroke-dasharray": "2 4" });
      ends.push([py(rule.y), rule.name]);
    }
    for (const line of o.lines) ends.push(...drawLine(line, px, py));
    if (o.at !== null) svg("line", drawing, { x1: px(o.at), x2: px(o.at), y1: box.top, y2: box.bottom, stroke: S.theme.muted, "stroke-dasharray": "3 3" });
    spread(ends, box).forEach(([y, text]) => svg("text", drawing, { class: "akd-halo", x: box.right + 8, y: y + 4 }, text));
  }

  function drawLine({ name, colour, marker, xs, ys, half, dash }, px, py) {
    if (!xs.length) return [];
    const { fill, edge } = paintOf(S.theme[colour] || colour, S.theme), ink = contrast(fill, S.theme.paper) >= 3 ? fill : edge;
    const points = [...xs].map((x, k) => `${px(x)},${py(ys[k])}`).join(" ");
    svg("polyline", drawing, { points, fill: "none", stroke: ink, "stroke-width": 2.5, "stroke-dasharray": dash ? "6 4" : "none", "stroke-linejoin": "round" });
    const few = xs.length <= 40;
    half?.forEach((h, k) => svg("line", drawing, { x1: px(xs[k]), x2: px(xs[k]), y1: py(ys[k] - h), y2: py(ys[k] + h), stroke: ink, "stroke-width": 1.5 })); // intervals
    [...xs].forEach((x, k) => { if (few || x === o.at) symbol(marker, px(x), py(ys[k]), x === o.at ? 6 : 3.6, ink); });
    return [[py(ys.at ? ys.at(-1) : ys[ys.length - 1]), name]];
  }

  function symbol(marker, x, y, r, fill) {
    const path = [], c = { moveTo: (a, b) => path.push(`M${a} ${b}`), lineTo: (a, b) => path.push(`L${a} ${b}`), closePath: () => path.push("Z"),
      rect: (a, b, w, h) => path.push(`M${a} ${b}h${w}v${h}h${-w}Z`), arc: (a, b, q) => path.push(`M${-q} 0a${q} ${q} 0 1 0 ${2 * q} 0a${q} ${q} 0 1 0 ${-2 * q} 0Z`) };
    (SHAPES[marker] || SHAPES.circle)(c, r);
    svg("path", drawing, { d: path.join(""), transform: `translate(${x} ${y})`, fill, "fill-rule": "evenodd" });
  }

  // Labels at the right, moved apart so that none covers another.
  function spread(ends, box) {
    const sorted = ends.sort((a, b) => a[0] - b[0]).map(([y, text]) => [y, text]);
    for (let k = 1; k < sorted.length; k++) sorted[k][0] = Math.max(sorted[k][0], sorted[k - 1][0] + 15);
    const over = sorted.length ? sorted.at(-1)[0] - (box.bottom + 4) : 0;
    if (over > 0) for (let k = sorted.length - 1, most = box.bottom + 4; k >= 0; k--, most -= 15) sorted[k][0] = Math.min(sorted[k][0], most);
    return sorted;
  }

  if (o.onPick) {
    root.style.cursor = "pointer";
    root.addEventListener("pointerdown", (event) => {
      const b = root.getBoundingClientRect(), u = (event.clientX - b.left) / b.width * map.width;
      const x = map.x0 + (u - map.box.left) / (map.box.right - map.box.left) * (map.x1 - map.x0);
      o.onPick(Math.min(map.x1, Math.max(map.x0, x)));
    });
  }
  S.onTheme(draw);
  S.onSize(draw);
  draw();
  requestAnimationFrame(draw);
  return { element: root, set: (next) => { o = { ...o, ...next }; draw(); } };
}

// Range of test accuracies: at least ten points, so that small steps look small.
function accuracyRange(lines, rules) {
  const ys = [...lines.flatMap((line) => line.ys), ...rules.map((rule) => rule.y)];
  if (!ys.length) return [0, 100];
  const low = Math.min(...ys), high = Math.max(...ys), room = Math.max(0.08 * (high - low), (10 - high + low) / 2), top = Math.min(100, high + room);
  return [Math.max(0, Math.min(low - room, top - 10)), top];
}

// The values of a line whose last point grows out of the one before: t from 0 to 1.
const between = (values, t) => [...values.slice(0, -1), values.at(-2) + t * (values.at(-1) - values.at(-2))];

// What a short name of a rule leaves out: "the teacher's accuracy is that on the pool".
const rulesNote = (rules) => rules.filter((rule) => rule.title?.endsWith("on pool")).map(() => "The teacher's line is its accuracy on the pool.").join("");
