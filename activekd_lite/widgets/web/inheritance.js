// InheritanceExplorer: the teacher's space, the student's, and the student's coloured by the distance to the nearest label.
// The two heads' probabilities lie in the page, so kd_weight, the picks of PCoreSet and all figures are computed here.
SHAPES.arrow = (c, r) => { c.moveTo(-r * 1.5, r * .25); c.lineTo(r * .2, r * .4); c.lineTo(r * .2, r); c.lineTo(r * 1.5, 0); c.lineTo(r * .2, -r); c.lineTo(r * .2, -r * .4); c.lineTo(-r * 1.5, -r * .25); c.closePath(); };
const DARK_FIELD = ["#17130f", "#432a18", "#84491c", "#c46a22", "#ee9440", "#ffc07a", "#ffeccb"]; // far is bright on dark paper
const GRID = 160, LEVELS = 12, TITLES = { pcoreset: "PCoreSet" };

function render({ model, el }) {
  const S = shell({
    model, el, name: "inheritance", title: "What the student inherits",
    hands: "kd_weight: move the points · N: next pick · drag: lasso · hover: pictures",
    fingers: "kd_weight: move the points · tap: picture · hold, then drag: lasso",
    keys: [["N / P", "one pick more / fewer"], ["[ / ]", "kd_weight down / up"], ["W", "sweep: move kd_weight through its whole range and back"], ["B", "balls on / off"],
      ["drag", "lasso: arrows for the selected images"], ["wheel, + −", "zoom, when the panel was clicked; 0 shows all"],
      ["← ↑ → ↓", "go to the neighbour in that direction"], ["Esc", "clear the selection"], ...FINGERS],
  });
  const start = S.view("start"), hidden = new Set();
  let weight = start.kd_weight, count = start.picks, beside = S.view("beside"), balls = S.view("balls"), task = null, now = null, drain = 1, sending = null;

  // Controls.
  const slider = S.slider("kd_weight", { min: 0, max: 1, step: .01, value: weight, text: (v) => v.toFixed(2) }, (v) => { stopSweep(); setWeight(v); });
  const sweep = S.button("sweep", () => sweeping ? stopSweep() : startSweep(), { title: "move kd_weight through its whole range and back", pressed: false, icon: "▶" });
  const picks = S.slider("picks", { min: 0, max: S.view("most"), step: 1, value: count }, setCount);
  const next = S.button("next pick", () => setCount(count + 1), { title: "take the image where the colour is strongest" });
  const menu = S.select("beside", S.view("strategies"), beside, (v) => { beside = v; placePanels(); tell(0); });
  const check = S.check("balls", balls, setBalls);
  const chosen = addClasses(S);

  // Panels: a column each, with what they say below.
  const L = linked(S, { count: S.view("size"), caption, onHover: () => middle.draw(), onChoose: () => { if (now) drawAll(); } });
  const column = (name, label) => {
    const side = S.side(1, 225), panel = L.panel(side, { title: name, height: 400, label });
    return Object.assign(panel, { column: side, said: make("p", "said", side) });
  };
  const left = column("1  The teacher", "the teacher's answers"), middle = column("2  The student", "the student's answers");
  const right = column("3  Where PCoreSet asks", "the student's answers, coloured by the distance to the nearest label");
  const other = column("4", "the same with the picks of another strategy");
  const scale = make("div", "scale", S.below);
  const key = S.legend([], { onFilter: (off) => { hidden.clear(); off.forEach((k) => hidden.add(k)); filter(); } });

  // Data.
  function read() {
    const classes = S.view("classes"), size = classes.length, teacher = S.array("teacher"), labels = S.array("labels", Int16Array), corners = S.view("corners");
    const fits = (array) => !!array && array.length === labels.length * size;
    if (!labels?.length || corners.length !== size || !fits(teacher)) return false; // the rest is on its way
    const rows = [], ce = S.array("ce"), kd = S.array("kd");
    for (let i = 0; i < labels.length; i++) if (teacher[i * size] === teacher[i * size]) rows.push(i);
    const at = new Int32Array(labels.length).fill(-1);
    rows.forEach((i, r) => { at[i] = r; });
    task = { classes, size, labels, corners, rows, at, whole: size === 3, unit: S.view("unit"), looks: S.view("looks"), labeled: S.view("labeled").map((i) => at[i]).filter((r) => r >= 0) };
    task.teacher = part(teacher);
    task.teacherXY = placed(task.teacher);
    task.said = answers(task.teacher);
    task.truth = rows.map((i) => labels[i]);
    task.wrong = rows.map((_, r) => task.truth[r] >= 0 && task.said[r] !== task.truth[r]);
    task.trained = S.view("trained") && fits(ce) && fits(kd);
    if (task.trained) { task.ce = part(ce); task.kd = part(kd); task.balls = ballGroups(); }
    const low = [0, 1].map((k) => Math.min(...corners.map((c) => c[k]))), high = [0, 1].map((k) => Math.max(...corners.map((c) => c[k])));
    const extent = Math.max(high[0] - low[0], high[1] - low[1]), edge = task.whole ? .07 : .2;
    task.extent = extent;
    task.range = { x: [low[0] - edge * extent, high[0] + edge * extent], y: [low[1] - .13 * extent, high[1] + .12 * extent] };
    drain = 1;
    return true;
  }

  // The rows of the task of an array over the whole pool, in double precision.
  function part(array) {
    const { rows, size } = task, found = new Float64Array(rows.length * size);
    rows.forEach((i, r) => { for (let c = 0; c < size; c++) found[r * size + c] = array[i * size + c]; });
    return found;
  }

  function placed(probs) {
    const { rows, size, corners, labels } = task, xy = new Float32Array(2 * labels.length).fill(NaN);
    rows.forEach((i, r) => {
      let x = 0, y = 0;
      for (let c = 0; c < size; c++) { x += probs[r * size + c] * corners[c][0]; y += probs[r * size + c] * corners[c][1]; }
      xy[2 * i] = x; xy[2 * i + 1] = y;
    });
    return xy;
  }

  function answers(probs) {
    const { rows, size } = task;
    return Int16Array.from(rows, (_, r) => {
      let best = 0;
      for (let c = 1; c < size; c++) if (probs[r * size + c] > probs[r * size + best]) best = c;
      return best;
    });
  }

  const mixed = () => { const { ce, kd } = task, p = new Float64Array(ce.length); for (let k = 0; k < p.length; k++) p[k] = (1 - weight) * ce[k] + weight * kd[k]; return p; };
  // Distances to the nearest label or pick.
  function covered(probs, given, most) {
    const found = cover(probs, task.size, task.labeled, most, given);
    return { ...found, near: found.near.map(Math.sqrt) };
  }

  function compute() {
    const probs = mixed(), said = answers(probs);
    now = { probs, said, xy: placed(probs), ours: covered(probs, null, count), counts: counted(said) };
    now.far = now.ours.radii[0] || 1;
    const given = S.view("beside_picks").map((i) => task.at[i]).filter((r) => r >= 0);
    now.theirs = beside === "nothing" ? null : covered(probs, given);
    now.circles = balls ? task.balls.map((g) => ({ ...g, student: ball(probs, g.members) })) : [];
  }

  function counted(said) {
    const c = { images: 0, errors: 0, copied: 0, corrected: 0, changed: 0, fresh: 0, right: 0 };
    task.rows.forEach((_, r) => {
      const y = task.truth[r];
      if (y < 0) return;
      c.images++;
      if (said[r] === y) c.right++;
      if (!task.wrong[r]) { if (said[r] !== y) c.fresh++; return; }
      c.errors++;
      c[said[r] === task.said[r] ? "copied" : said[r] === y ? "corrected" : "changed"]++;
    });
    return c;
  }

  // The balls: images of one true class with one answer of the teacher, at least ten; the radius holds half of them.
  function ballGroups() {
    const found = new Map();
    task.rows.forEach((_, r) => {
      if (task.truth[r] < 0) return;
      const k = task.said[r] * task.size + task.truth[r];
      found.set(k, [...(found.get(k) || []), r]);
    });
    return [...found].filter(([, members]) => members.length >= 10).map(([k, members]) => ({ label: k % task.size, members, teacher: ball(task.teacher, members) }));
  }

  function ball(probs, members) {
    const { size } = task, center = new Float64Array(size);
    for (const r of members) for (let c = 0; c < size; c++) center[c] += probs[r * size + c] / members.length;
    const reach = members.map((r) => { let d = 0; for (let c = 0; c < size; c++) d += (probs[r * size + c] - center[c]) ** 2; return Math.sqrt(d); }).sort((a, b) => a - b);
    return { center, radius: reach[Math.ceil(.5 * (reach.length - 1))] };
  }

  // Drawing.
  const spot = (probs) => { let x = 0, y = 0; task.corners.forEach(([u, v], c) => { x += probs[c] * u; y += probs[c] * v; }); return [x, y]; };
  const visible = (r) => !hidden.has(task.truth[r]);

  function frame(c, to) {
    const { corners, whole } = task, middle = [0, 1].map((k) => corners.reduce((s, p) => s + p[k], 0) / corners.length);
    const around = corners.map((p, k) => [Math.atan2(p[1] - middle[1], p[0] - middle[0]), k]).sort((a, b) => a[0] - b[0]).map(([, k]) => corners[k]);
    c.lineWidth = 1.5;
    c.strokeStyle = S.theme.line;
    c.beginPath();
    around.forEach((p, k) => c[k ? "lineTo" : "moveTo"](...to(...p)));
    c.closePath();
    c.stroke();
    if (!whole) return;
    c.setLineDash([2, 4]);
    c.lineWidth = 1;
    c.beginPath();
    corners.forEach((p, k) => { const q = corners[(k + 1) % 3]; c.moveTo(...to(...middle)); c.lineTo(...to((p[0] + q[0]) / 2, (p[1] + q[1]) / 2)); });
    c.stroke();
    c.setLineDash([]);
  }

  function names(c, to, panel) {
    const { corners, looks, classes, whole } = task, mean = [0, 1].map((k) => corners.reduce((s, p) => s + p[k], 0) / corners.length);
    const many = corners.length > 12;
    c.font = `bold ${many ? 11 : 15}px Helvetica, Arial, sans-serif`;
    c.textAlign = "left";
    corners.forEach(([u, v], k) => {
      const [x, y] = to(u, v), below = v < mean[1] - 1, aside = whole ? 0 : Math.sign(Math.abs(u - mean[0]) < .06 * task.extent ? 0 : u - mean[0]);
      const wide = c.measureText(classes[k]).width + 18, left = Math.min(Math.max(2, aside > 0 ? x + 6 : aside < 0 ? x - 6 - wide : x - wide / 2), panel.width - wide - 2);
      const base = Math.min(panel.tall - 5, Math.max(14, y + (below ? 20 : -9)));
      const [picture, side] = sprite(...looks[k], 5, S.pixels(), S.theme);
      c.drawImage(picture, left + 6 - side / 2, base - 5 - side / 2, side, side);
      panel.text(c, classes[k], left + 16, base);
    });
  }

  // Tapered arrows from the teacher's answers to the student's.
  function arrows(c, to, members, colour, alpha) {
    c.fillStyle = colour;
    c.globalAlpha = alpha;
    c.beginPath();
    for (const r of members) {
      const i = task.rows[r], [x0, y0] = to(task.teacherXY[2 * i], task.teacherXY[2 * i + 1]), [x1, y1] = to(now.xy[2 * i], now.xy[2 * i + 1]);
      const length = Math.hypot(x1 - x0, y1 - y0);
      if (length < 1.5) continue;
      const u = (x1 - x0) / length, v = (y1 - y0) / length, head = Math.min(9, length), nx = x1 - u * head, ny = y1 - v * head;
      c.moveTo(x0, y0);
      for (const w of [.9, 3.4]) c.lineTo(nx - v * w, ny + u * w);
      c.lineTo(x1, y1);
      for (const w of [3.4, .9]) c.lineTo(nx + v * w, ny - u * w);
      c.closePath();
    }
    c.fill();
    c.globalAlpha = 1;
  }

  const some = (kind) => task.rows.map((_, r) => r).filter((r) => {
    if (!visible(r)) return false;
    if (L.some ? !L.chosen[task.rows[r]] : !task.wrong[r]) return false;
    const copied = task.wrong[r] && now.said[r] === task.said[r];
    return kind === "copied" ? copied : !copied;
  });

  function rings(c, to, which, panel) {
    c.fillStyle = S.theme.paper;
    c.globalAlpha = .55; // the points step back
    c.fillRect(0, 0, panel.width, panel.tall);
    c.globalAlpha = 1;
    c.lineWidth = 2.5;
    for (const g of now.circles) {
      const tint = paintOf(task.looks[g.label][0], S.theme), target = new Float64Array(task.size);
      for (let k = 0; k < task.size; k++) target[k] = weight * g.teacher.center[k] + (k === g.label ? 1 - weight : 0);
      const outlines = which === "teacher" ? [[g.teacher, []]] : [[g.student, []], [{ center: target, radius: weight * g.teacher.radius }, [6, 5]]];
      for (const [{ center, radius }, dash] of outlines) {
        const [u, v] = spot(center), [x, y] = to(u, v), r = to(u + task.unit * radius, v)[0] - x;
        c.setLineDash(dash);
        c.strokeStyle = contrast(tint.fill, S.theme.paper) >= 3 ? tint.fill : tint.edge;
        c.beginPath();
        c.arc(x, y, Math.max(r, 1), 0, 7);
        c.stroke();
      }
    }
    c.setLineDash([]);
  }

  // The track of the image under the mouse, from the answer of the label head to that of the teacher's head.
  function track(c, to) {
    const r = L.hovered >= 0 && task.trained ? task.at[L.hovered] : -1;
    if (r < 0) return;
    const ends = [task.ce, task.kd].map((probs) => to(...spot(probs.subarray(r * task.size, (r + 1) * task.size))));
    for (const [width, colour] of [[5, S.theme.paper], [2, S.theme.accent]]) {
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.beginPath();
      c.moveTo(...ends[0]);
      c.lineTo(...ends[1]);
      c.stroke();
    }
    c.font = "bold 12px Helvetica, Arial, sans-serif";
    c.textAlign = "center";
    if (Math.hypot(ends[0][0] - ends[1][0], ends[0][1] - ends[1][1]) > 40) ["0", "1"].forEach((text, k) => middle.text(c, text, ends[k][0], ends[k][1] + 14));
    c.textAlign = "left";
  }

  const field = () => S.theme.dark ? DARK_FIELD : S.view("field");
  const shade = (() => {
    let known = "", table = null; // 256 colours, from near to far
    return () => {
      const stops = field(), id = stops.join();
      if (known === id) return table;
      const colours = stops.map(rgbOf);
      table = new Uint8Array(768);
      for (let k = 0; k < 256; k++) {
        const t = k / 255 * (stops.length - 1), j = Math.min(stops.length - 2, Math.floor(t));
        for (let ch = 0; ch < 3; ch++) table[3 * k + ch] = colours[j][ch] + (t - j) * (colours[j + 1][ch] - colours[j][ch]);
      }
      known = id;
      return table;
    };
  })();

  // The triangle coloured by the distance to the nearest label or pick; the last pick's colour drains from its place.
  const sheet = make("canvas", "", null, { width: GRID, height: Math.round(GRID * .866) }), brush = sheet.getContext("2d"), picture = brush.createImageData(sheet.width, sheet.height);
  function space(c, to, { picks: found }) {
    const table = shade(), w = sheet.width, h = sheet.height, out = picture.data;
    const [a, b, top] = task.corners, side = b[0] - a[0], step = side / w, centres = [...task.labeled, ...found].map((r) => { const i = task.rows[r]; return [now.xy[2 * i], now.xy[2 * i + 1]]; });
    const last = found.length && drain < 1 ? centres.length - 1 : -1, late = (1 - drain) * now.far * task.unit, reach = 255 / (now.far * task.unit);
    for (let j = 0; j < h; j++) {
      const y = top[1] - (j + .5) / h * (top[1] - a[1]), half = Math.ceil((j + 1) / h * w / 2) + 2; // what lies outside the triangle is cut off
      for (let i = Math.max(0, (w >> 1) - half); i < Math.min(w, (w >> 1) + half); i++) {
        const x = a[0] + (i + .5) * step;
        let best = Infinity, newest = Infinity;
        for (let k = 0; k < centres.length; k++) {
          const dx = x - centres[k][0], dy = y - centres[k][1], d = dx * dx + dy * dy;
          if (k === last) newest = d;
          else if (d < best) best = d;
        }
        let d = Math.sqrt(best);
        if (last >= 0) d = Math.min(d, Math.sqrt(newest) + late);
        const at = 4 * (j * w + i), tone = 3 * Math.min(255, d * reach | 0);
        out[at] = table[tone]; out[at + 1] = table[tone + 1]; out[at + 2] = table[tone + 2]; out[at + 3] = 255;
      }
    }
    brush.putImageData(picture, 0, 0);
    const corners = task.corners.map((p) => to(...p)), [x0, y0] = to(a[0], top[1]), [x1, y1] = to(b[0], a[1]);
    c.save();
    c.beginPath();
    corners.forEach((p, k) => c[k ? "lineTo" : "moveTo"](...p));
    c.closePath();
    c.clip();
    c.imageSmoothingEnabled = true;
    c.drawImage(sheet, x0, y0, x1 - x0, y1 - y0);
    c.restore();
  }

  function drawAll(moved = false) {
    if (!task) return;
    const shared = { range: task.range, looks: task.looks, groups: task.labels }, faint = balls && now && now.circles.length;
    if (!moved || faint) left.set({ ...shared, xy: task.teacherXY, under: frame, over: (c, to) => { if (faint) rings(c, to, "teacher", left); names(c, to, left); } });
    if (!moved || faint) left.draw();
    if (!now) { // not trained yet: empty triangles
      for (const panel of [middle, right, other])
        panel.set({ ...shared, xy: new Float32Array(2 * task.labels.length).fill(NaN), marks: [], under: frame, over: (c, to) => names(c, to, panel) });
      return;
    }
    const plain = faint && !L.some;
    middle.set({ ...shared, xy: now.xy,
      under: (c, to) => { frame(c, to); if (!plain && !hidden.has("changed")) arrows(c, to, some("changed"), S.theme.muted, .6); },
      over: (c, to) => {
        if (!plain && !hidden.has("copied")) arrows(c, to, some("copied"), S.theme.hot, .9);
        if (faint) rings(c, to, "student", middle);
        names(c, to, middle);
        track(c, to);
      } });
    middle.draw();
    drawSpace(right, now.ours);
    if (now.theirs) drawSpace(other, now.theirs);
  }

  function drawSpace(panel, covered) {
    const tones = new Int16Array(task.labels.length).fill(-1), table = shade();
    task.rows.forEach((i, r) => { tones[i] = Math.min(LEVELS - 1, Math.floor(covered.near[r] / now.far * LEVELS)); });
    const looks = Array.from({ length: LEVELS }, (_, k) => { const at = 3 * Math.round((k + .5) / LEVELS * 255); return [`rgb(${table[at]},${table[at + 1]},${table[at + 2]})`, "circle"]; });
    const marks = task.labeled.map((r) => ({ index: task.rows[r], kind: "start" }));
    covered.picks.forEach((r, k) => marks.push({ index: task.rows[r], kind: "pick", text: String(k + 1), picture: k >= covered.picks.length - 8 }));
    if (covered.next >= 0 && count < S.view("most")) marks.push({ index: task.rows[covered.next], kind: "next" });
    const images = covered.picks.map((r) => task.rows[r]);
    panel.set({ xy: now.xy, range: task.range, groups: tones, looks, marks,
      label: `the student's answers, coloured by the distance to the nearest label; ${images.length ? `picks in order: images ${images.join(", ")}` : "no picks"}`,
      under: (c, to) => { if (task.whole) space(c, to, covered); frame(c, to); },
      over: (c, to) => names(c, to, panel) });
    panel.draw();
  }

  // Words and figures.
  const rate = (part, whole) => percent(part / Math.max(1, whole));
  function words() {
    const right1 = task.rows.filter((_, r) => task.truth[r] >= 0 && !task.wrong[r]).length, known = task.rows.filter((_, r) => task.truth[r] >= 0).length;
    left.said.textContent = `The teacher's accuracy is ${rate(right1, known)}: ${plural(known - right1, "mistake")} in ${plural(known, "image")}.`;
    if (!now) {
      middle.said.textContent = "A student is being trained on these classes.";
      right.said.textContent = other.said.textContent = "";
      S.status("");
      return;
    }
    const c = now.counts, also = c.changed ? `, makes another mistake on ${c.changed}` : "";
    const copies = `The student copies ${c.copied} of the teacher's ${plural(c.errors, "mistake")}`;
    middle.said.textContent = `${copies}, corrects ${c.corrected}${also}, and makes ${plural(c.fresh, "new one")}: ${rate(c.right, c.images)} right.`;
    if (balls) middle.said.textContent = ratios();
    right.said.textContent = covers(now.ours);
    if (now.theirs) other.said.textContent = covers(now.theirs);
    const whole = task.whole ? "" : " The panels are a projection: true distances are larger.";
    S.status(`kd_weight ${weight.toFixed(2)}: ${rate(c.right, c.images)} right, ${c.copied} of ${c.errors} mistakes copied; ${plural(now.ours.picks.length, "pick")}.${whole}`);
  }

  const covers = ({ radii, picks: found, next }) => {
    const wrong = found.filter((r) => task.truth[r] >= 0 && now.said[r] !== task.truth[r]).length, n = found.length, far = radii[0].toFixed(2);
    const reached = n ? `After ${plural(n, "pick")}, the largest distance to a label is ${radii.at(-1).toFixed(2)}; before, it was ${far}. The student is wrong on ${wrong} of the ${plural(n, "pick")}.`
      : `The largest distance to a label is ${far}.`;
    return next < 0 ? reached : `${reached} ★ marks the next pick.`;
  };

  function ratios() {
    const found = now.circles.map((g) => g.student.radius / Math.max(g.teacher.radius, 1e-12)).sort((a, b) => a - b), n = found.length;
    if (!n) return "No ball has ten images.";
    const median = n % 2 ? found[(n - 1) / 2] : (found[n / 2 - 1] + found[n / 2]) / 2;
    return `Solid: balls that hold half of a group (teacher's answer and true class). Dashed: the proposition, radius × ${weight.toFixed(2)}. Measured: radius × ${median.toFixed(2)} in the median of ${n} balls, from ${found[0].toFixed(2)} to ${found[n - 1].toFixed(2)}.`;
  }

  function caption(i) {
    const r = task.at[i];
    if (r < 0) return `image ${i}`;
    const true_ = task.truth[r] >= 0 ? `truly ${task.classes[task.truth[r]]}, ` : "";
    const sure = (probs, said) => `${task.classes[said[r]]} (${percent(probs[r * task.size + said[r]])})`;
    return `image ${i}: ${true_}teacher says ${sure(task.teacher, task.said)}` + (now ? `, student ${sure(now.probs, now.said)}` : "");
  }

  function legend() {
    const counts = new Map();
    task.truth.forEach((y) => counts.set(y, (counts.get(y) || 0) + 1));
    const entries = task.classes.map((name, k) => ({ key: k, name: `truly ${name}`, look: task.looks[k], count: counts.get(k) || 0 }));
    key.set([...entries, { key: "copied", name: "copied mistake", look: ["hot", "arrow"] }, { key: "changed", name: "changed answer", look: ["muted", "arrow"] },
      { key: "start", name: "labelled", look: ["ink", "x"], fixed: true }, { key: "next", name: "next pick", look: ["hot", "star"], fixed: true }]);
    filter();
  }

  function filter() {
    const off = [...hidden].some((k) => typeof k === "number");
    L.only(off ? Uint8Array.from(task.labels, (y, i) => +(task.at[i] >= 0 && !hidden.has(y))) : null);
    drawAll();
  }

  // The scale of the colours: a strip, drawn once per theme, and its largest distance.
  const [, strip, largest] = [make("span", "", scale, { textContent: "distance to the nearest label: 0" }),
    make("canvas", "", scale, { width: 256, height: 1, ariaHidden: "true" }), make("span", "", scale)];
  let striped = null;
  function bar() {
    const text = now ? now.far.toFixed(2) : "", table = shade(), c = strip.getContext("2d");
    if (largest.textContent !== text) largest.textContent = text;
    if (striped === field().join()) return;
    striped = field().join();
    for (let k = 0; k < 256; k++) { c.fillStyle = `rgb(${table.subarray(3 * k, 3 * k + 3)})`; c.fillRect(k, 0, 1, 1); }
  }

  // Changes.
  let asked = 0;
  function update(moved = false) {
    cancelAnimationFrame(asked);
    asked = 0;
    if (!task?.trained) now = null;
    else compute();
    drawAll(moved);
    words();
    bar();
  }

  function tell(wait = 150) {
    clearTimeout(sending);
    sending = setTimeout(() => S.send("set", { kd_weight: weight, picks: count, beside, balls }), wait);
  }

  function setWeight(v) {
    weight = Math.min(1, Math.max(0, Math.round(100 * v) / 100));
    slider.set(weight);
    asked ||= requestAnimationFrame(() => update(true)); // once per frame, however often the slider speaks
    tell();
  }

  function setCount(k) {
    const before = count;
    count = Math.min(S.view("most"), Math.max(0, k));
    picks.set(count);
    if (!task?.trained) return;
    tell();
    if (count !== before + 1) { drain = 1; update(); return; }
    drain = 0;
    update();
    S.animate(600, (t) => { drain = t; drawSpace(right, now.ours); if (now.theirs) drawSpace(other, now.theirs); }, () => { drain = 1; });
  }

  function setBalls(on) {
    balls = on;
    check.set(on);
    update();
    tell();
  }

  let sweeping = false;
  function startSweep() {
    const from = weight;
    sweeping = true;
    sweep.press(true);
    const way = (t) => { const s = (from + 2 * t) % 2; return s <= 1 ? s : 2 - s; }; // up to 1, down to 0, up again
    S.animate(6000, (t) => { weight = way(t); slider.set(Math.round(100 * weight) / 100); update(true); }, () => { stopSweep(); setWeight(from); });
  }
  function stopSweep() {
    if (!sweeping) return;
    sweeping = false;
    sweep.press(false);
    cancelAnimationFrame(S.frame);
    setWeight(weight);
  }

  function placePanels() {
    const shown = beside !== "nothing";
    other.column.hidden = !shown;
    if (shown) other.set({ title: `4  Where ${TITLES[beside] || beside} asks` });
    if (task) update();
    L.panels.forEach((panel) => panel.draw());
  }

  S.key("n", () => setCount(count + 1));
  S.key("p", () => setCount(count - 1));
  S.key("[", () => setWeight(weight - .05));
  S.key("]", () => setWeight(weight + .05));
  S.key("w", () => sweeping ? stopSweep() : startSweep());
  S.key("b", () => setBalls(!balls));
  S.onReset(() => {
    stopSweep();
    [weight, count, beside, balls] = [start.kd_weight, start.picks, start.beside, start.balls];
    [slider, picks].forEach((control, k) => control.set([weight, count][k]));
    menu.set(null, beside);
    check.set(balls);
    key.clear();
    L.reset();
    placePanels();
    tell(0);
  });
  S.on(["classes", "corners", "labeled", "trained", "teacher", "ce", "kd", "labels"], () => {
    if (!read()) return;
    chosen.set();
    for (const control of [slider, picks]) control.input.disabled = !task.trained;
    next.enable(task.trained);
    sweep.enable(task.trained);
    update();
    legend();
  });
  S.on("beside_picks", () => { if (task) update(); });
  S.onTheme(() => { if (task) { drawAll(); bar(); } });
  placePanels();
  S.cleanup(() => { clearTimeout(sending); cancelAnimationFrame(asked); });
  if (!S.view("trained")) S.send("ready");
  return S.close;
}

// Menus of the three classes, and a box for all of them; a student is trained after each change.
function addClasses(S) {
  if (!S.view("trainable")) return { set: () => {} };
  const all = S.view("classnames");
  const box = make("span", "classes", S.bar, { role: "group", "aria-label": "classes" });
  make("span", "", box, { textContent: "classes" });
  const menus = [0, 1, 2].map((k) => S.select("", all, "", (name) => {
    const names = menus.map((m) => m.element.querySelector("select").value), twin = names.findIndex((n, j) => j !== k && n === name);
    if (twin >= 0) names[twin] = S.view("classes")[k]; // they change places
    S.send("classes", { names });
  }, { parent: box }));
  menus.forEach((menu, k) => menu.element.querySelector("select").setAttribute("aria-label", `class ${k + 1}`));
  const every = S.check("all", false, (on) => S.send("classes", { names: on ? all : last }), { parent: box });
  every.input.setAttribute("aria-label", `all ${all.length} classes, as a projection`);
  let last = all.slice(0, 3);
  return { set: () => {
    const names = S.view("classes");
    every.set(names.length > 3);
    if (names.length === 3) last = names;
    menus.forEach((menu, k) => { menu.set(null, last[k]); menu.element.querySelector("select").disabled = names.length > 3; });
  } };
}

export default { render };
