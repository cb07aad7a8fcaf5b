// The page of the RunViewer: the learning curve, the seconds of each round by stage, the queries with the newest on top.
// While a run occupies the kernel, nothing can be asked of it: all that is shown comes with the state.

function render({ model, el }) {
  const S = shell({
    model, el, name: "viewer", title: "A run as it happens", hands: "click the curve: the query of that round · legend: hide a line",
    keys: [["← →", "the query of the round before or after"], ["Home, End", "the first query, the newest"]],
  });
  const left = S.side(3, 300), right = S.side(2, 260);
  make("h3", "", left, { textContent: "Test accuracy of the student" });
  const note = make("p", "note", left);
  const plot = make("div", "plot", left);
  make("h3", "", right, { textContent: "Seconds per round" });
  const stages = make("div", "stages", right), seconds = make("div", "seconds", right, { tabIndex: 0, role: "region", "aria-label": "seconds per round" });
  const queries = make("div", "queries", S.below, { tabIndex: 0, role: "region", "aria-label": "queries, newest first" });
  const drawn = chart(S, plot, { height: 280, x: "labels", y: "accuracy (%)", onPick: pick });
  const legend = S.legend([], { onFilter: curve });
  let lines = [], known = new Map(), at = null; // at: round whose query was chosen

  function legendOfStages() {
    stages.replaceChildren(...S.view("stages").map(([name, colour]) => {
      const entry = make("span", "stage", null);
      entry.append(patch(colour), name);
      return entry;
    }));
  }

  function patch(colour) {
    const { fill, edge } = paintOf(colour, S.theme), box = make("i", "patch", null, { "aria-hidden": "true" });
    box.style.cssText = `background: ${fill}; border-color: ${edge}`;
    return box;
  }

  function curve() {
    const rules = S.view("rules"), shown = lines.filter((line) => !legend.hidden.has(line.name));
    const round = S.view("rounds").find((r) => r.round === at);
    drawn.set({ lines: shown, rules, xRange: S.view("counts"), yRange: accuracyRange(lines, rules), at: round ? round.labels : null });
  }

  // A new point grows out of the one before it.
  S.on(["lines", "rules", "counts"], () => {
    const next = S.view("lines"), grows = lines.length && next.length && next[0].xs.length === lines[0].xs.length + 1;
    legend.set(next.map((line) => ({ key: line.name, name: line.name, look: [S.theme[line.colour] || line.colour, line.marker] })));
    note.textContent = rulesNote(S.view("rules"));
    lines = next;
    if (!grows) return curve();
    S.animate(600, (t) => { lines = t < 1 ? next.map((line) => ({ ...line, xs: between(line.xs, t), ys: between(line.ys, t) })) : next; curve(); });
  });

  S.on("rounds", () => {
    const rounds = S.view("rounds"), names = S.view("stages").map(([name]) => name);
    const most = Math.max(1e-9, ...rounds.map((r) => r.seconds.reduce((a, b) => a + b, 0)));
    const rows = rounds.map((r) => {
      const row = make("div", "time", null), total = r.seconds.reduce((a, b) => a + b, 0);
      make("span", "", row, { textContent: `round ${r.round}` });
      const bar = make("span", "bar-of", row, { role: "img", "aria-label": names.map((name, k) => `${name} ${r.seconds[k].toFixed(2)} s`).join(", ") });
      bar.title = bar.getAttribute("aria-label");
      r.seconds.forEach((value, k) => {
        const part = patch(S.view("stages")[k][1]);
        part.style.width = `${100 * value / most}%`;
        if (value > 0.003 * most) bar.append(part); // else thinner than its border
      });
      make("span", "", row, { textContent: `${total.toFixed(1)} s` });
      return row;
    });
    seconds.replaceChildren(...rows);
    seconds.scrollTop = seconds.scrollHeight;
  });

  // Unchanged queries keep their elements, so that nothing flickers or loses its place.
  S.on("queries", () => {
    const entries = S.view("queries"), before = known;
    known = new Map();
    for (const entry of entries) {
      const content = JSON.stringify(entry.tiles.map((tile) => [tile.index, tile.caption])), old = before.get(entry.round);
      known.set(entry.round, old?.content === content ? old : { content, box: drawQuery(entry) });
    }
    queries.replaceChildren(...[...known.values()].map(({ box }) => box));
    queries.hidden = !entries.length;
    mark();
  });

  function drawQuery({ round, count, tiles: pictures }) {
    const box = make("section", "query", null), more = count > pictures.length ? `, the first ${pictures.length}` : "";
    make("h3", "", box, { textContent: `queried after round ${round}: ${count} images${more}` });
    tiles(S, make("div", "", box), pictures, { side: 44 });
    return box;
  }

  function mark() {
    for (const [round, { box }] of known) box.classList.toggle("akd-at", round === at);
  }

  function choose(round) {
    at = round;
    mark();
    curve();
    known.get(round)?.box.scrollIntoView({ block: "nearest", behavior: S.calm ? "auto" : "smooth" });
  }

  function pick(labels) {
    const rounds = S.view("rounds").filter((r) => known.has(r.round));
    if (rounds.length) choose(rounds.reduce((a, b) => Math.abs(b.labels - labels) < Math.abs(a.labels - labels) ? b : a).round);
  }

  function go(step) {
    const rounds = [...known.keys()].sort((a, b) => a - b); // newest first on the page
    if (!rounds.length) return;
    const place = at === null ? rounds.length - 1 : rounds.indexOf(at) + step;
    choose(rounds[Math.min(rounds.length - 1, Math.max(0, place))]);
  }

  S.key("ArrowLeft", () => go(-1));
  S.key("ArrowRight", () => go(1));
  S.key("Home", () => go(-Infinity));
  S.key("End", () => go(Infinity));
  S.onTheme(legendOfStages);
  legendOfStages();
  return S.close;
}

export default { render };
