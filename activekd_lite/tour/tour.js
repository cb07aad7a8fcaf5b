// The tour's explorers, and what a kernel would answer them.
// k-center, and the distances to the nearest centre before and after each pick.
function kCenter(probs, size, start, most, given = null) {
  const tables = [], { near, next, ...found } = cover(probs, size, start, most, given, (now) => tables.push(Float64Array.from(now, Math.sqrt)));
  return { ...found, tables };
}

// A model as explorers know it from Jupyter. answers: kind of message -> function(message, model).
function hosted(state, answers = {}) {
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const now = { hovered: -1, chosen: new DataView(new ArrayBuffer(0)) }, heard = {};
  const call = (event, ...rest) => { for (const action of heard[event] || []) action(...rest); };
  for (const [key, value] of Object.entries(state)) now[key] = value?.bytes !== undefined ? bytes(value.bytes) : value;
  const model = {
    get: (key) => now[key],
    set: (key, value) => { now[key] = value; call("change:" + key); },
    save_changes: () => {},
    update: (fields) => model.set("view", { ...now.view, ...fields }),
    send: (message) => queueMicrotask(() => { answers[message.kind]?.(message, model); call("msg:custom", { kind: "done" }, []); }),
    on: (events, action) => { for (const event of events.split(" ")) (heard[event] ||= []).push(action); },
    off: (event, action) => { heard[event] = (heard[event] || []).filter((a) => a !== action); },
  };
  return model;
}

const floats = (model, key) => { const view = model.get(key); return new Float32Array(view.buffer, view.byteOffset, view.byteLength / 4); };

// The card of the image under the mouse, and the selection by answer.
function answersOfSimplex(model, probs) {
  const { classnames, size } = model.get("view"), labels = new Int16Array(model.get("groups").buffer), many = classnames.length;
  const row = (i) => [...probs.subarray(i * many, (i + 1) * many)], best = (i) => { const p = row(i); return p.indexOf(Math.max(...p)); };
  model.on("change:hovered", () => {
    const index = model.get("hovered");
    if (index < 0) return;
    const sorted = row(index).map((p, c) => [classnames[c], p]).sort((a, b) => b[1] - a[1]).slice(0, 5);
    model.update({ card: { index, truth: classnames[labels[index]], answers: [["teacher", sorted]] } });
  });
  model.on("change:chosen", () => {
    const mask = new Uint8Array(model.get("chosen").buffer), found = new Map();
    let selected = 0;
    for (let i = 0; i < size; i++) if (mask[i >> 3] >> (i & 7) & 1) { selected++; const c = best(i); found.set(c, [...(found.get(c) || []), i]); }
    const groups = [...found].sort((a, b) => b[1].length - a[1].length).slice(0, 5);
    model.update({ selected, selection: groups.map(([c, images]) => ({ name: classnames[c], count: images.length, images: images.slice(0, 18) })) });
  });
}

// PCoreSet's picks, those of the strategy beside, and the visitor's own.
function answersOfStepper(state) {
  const made = { mine: [] };
  const packed = (table, unit) => new DataView(Int16Array.from(table, (d) => Math.round(d * unit)).buffer);
  const joined = (tables) => { const all = new Float64Array(tables.length * tables[0].length); tables.forEach((t, k) => all.set(t, k * t.length)); return all; };
  const number = (d) => d.toFixed(2);

  function path(model, name) {
    const { budget, given, start } = model.get("view"), probs = floats(model, "probs");
    const size = made.size, picks = name === "pcoreset" ? null : name === "you" ? made.mine : given[name];
    const found = kCenter(probs, size, start, budget, picks);
    found.why = found.radii.map((radius, k) => {
      if (k === found.picks.length) return `After ${k} ${k === 1 ? "pick" : "picks"}, no image is farther than ${number(radius)} from a labelled one.`;
      const gap = found.gaps[k], said = `image ${found.picks[k]} is ${number(gap)} from its nearest labelled image (image ${found.nearest[k]})`;
      if (gap >= radius - 1e-9) return `${said}: farther than any other.`;
      const table = found.tables[k], far = table.indexOf(radius);
      return `${said}; the farthest, image ${far}, is ${number(radius)} away.`;
    });
    return found;
  }

  function refresh(model, fields = {}) {
    const view = { ...model.get("view"), ...fields }, names = [...new Set(["pcoreset", view.beside, "random", ...(made.mine.length ? ["you"] : [])])];
    for (const name of names) if (name === "you" || !made[name]) made[name] = path(model, name);
    const paths = Object.fromEntries(names.map((name) => { const { tables, ...rest } = made[name]; return [name, rest]; }));
    const table = (name) => packed(joined(made[name].tables), view.steps), mine = made.mine.length ? made.you.tables.at(-1) : made.pcoreset.tables[0];
    model.set("ours", table("pcoreset"));
    model.set("other", table(view.beside));
    model.set("mine", packed(mine, view.steps));
    const count = made.mine.length, radius = (name) => number(made[name].radii[count]);
    const score = count ? `Covering radius after ${count} of ${view.budget} picks: you ${radius("you")}, pcoreset ${radius("pcoreset")}, random ${radius("random")}.`
      : `Click up to ${view.budget} images to make the covering radius small.`;
    const radii = ["pcoreset", view.beside].map((name) => `${name} ${number(made[name].radii[0])}${view.at ? ` to ${number(made[name].radii[view.at])}` : ""}`);
    const told = `${view.at} of ${view.budget} picks made. Covering radius in probability space: ${radii.join(", ")}.`;
    model.update({ ...fields, paths, score, status: view.yours ? score : told });
  }

  function pick({ index }, model) {
    const { start, budget } = model.get("view");
    const known = start.includes(index) ? `image ${index} is labelled already; pick another one` : made.mine.includes(index) ? `image ${index} is picked already; pick another one`
      : made.mine.length === budget ? `all ${budget} picks are made; undo one, or clear them` : "";
    if (known) return model.update({ error: known });
    made.mine = [...made.mine, index];
    refresh(model, { error: "" });
  }

  return {
    begin: (model) => { made.size = 2 * floats(model, "probs").length / floats(model, "xy").length; refresh(model); },
    answers: {
      pick, step: ({ to }, model) => refresh(model, { at: to }), beside: ({ name }, model) => refresh(model, { beside: name }),
      yours: ({ shown }, model) => refresh(model, { yours: shown }),
      undo: (_, model) => { made.mine = made.mine.slice(0, -1); refresh(model); }, clear: (_, model) => { made.mine = []; refresh(model); },
      reset: (_, model) => { made.mine = []; refresh(model, { at: 0, yours: false, error: "" }); },
    },
  };
}

const SCENES = JSON.parse(document.getElementById("scenes").textContent);
const place = (name) => document.getElementById(`scene-${name}`);
const MODELS = {};

function start(name) {
  if (MODELS[name]) return;
  const stepper = name === "stepper" ? answersOfStepper() : null;
  const model = MODELS[name] = hosted(SCENES[name], stepper?.answers);
  stepper?.begin(model);
  if (name === "simplex") answersOfSimplex(model, floats(model, "probs"));
  place(name).replaceChildren();
  RENDER[name]({ model, el: place(name) });
}

// A scene starts when it comes near the window, so the first one is there at once.
const near = new IntersectionObserver((entries) => { for (const { isIntersecting, target } of entries) if (isIntersecting) { near.unobserve(target); start(target.dataset.scene); } }, { rootMargin: "400px" });
document.querySelectorAll("[data-scene]").forEach((element) => near.observe(element));
window.tour = { kCenter, MODELS, start };
