// What it buys: learning curves of the embedded study, with the means and 95 % intervals of its seeds.
function render({ model, el }) {
  const S = shell({ model, el, name: "curves", title: "What the labels buy", hands: "choose a data set · legend: hide a line", keys: [] });
  const parts = S.view("parts"), plain = "labels alone";
  let part = parts[0], hidden = new Set();
  const menu = S.select("data set", parts.map((p) => p.name), part.name, (name) => { part = parts.find((p) => p.name === name); show(); });
  const sides = [["with the teacher", true], [plain, false]].map(([title, distill]) => {
    const side = S.side(1, 300);
    make("div", "title", side, { textContent: title });
    return { distill, graph: chart(S, make("div", "", side), { height: 320, x: "labelled images", y: "test accuracy (%)", lines: [] }), table: make("div", "only-spoken", side) };
  });
  const key = S.legend([], { onFilter: (off) => { hidden = new Set(off); draw(); } });

  function show() {
    key.set(part.lines.filter((line) => line.distill).map(({ strategy, colour, marker }) => ({ key: strategy, name: strategy, look: [colour, marker] })));
    draw();
  }
  function draw() {
    const rules = [{ name: "teacher", y: part.teacher }];
    const all = part.lines.flatMap((line) => line.ys.flatMap((y, k) => [y - line.half[k], y + line.half[k]]));
    const yRange = [Math.max(0, Math.min(...all) - 2), Math.min(100, Math.max(...all, part.teacher) + 2)];
    for (const { distill, graph, table } of sides) {
      const lines = part.lines.filter((line) => line.distill === distill && !hidden.has(line.strategy));
      graph.set({ lines: lines.map((line) => ({ ...line, name: line.strategy })), rules, yRange });
      table.textContent = lines.map(({ strategy, xs, ys, half }) => `${strategy}: ${ys.at(-1).toFixed(1)} ± ${half.at(-1).toFixed(1)} % at ${xs.at(-1)} labels`).join("; ");
    }
    const [taught, alone] = [true, false].map((distill) => part.lines.find((line) => line.strategy === "pcoreset" && line.distill === distill));
    const said = ({ xs, ys, half }) => `${ys.at(-1).toFixed(1)} ± ${half.at(-1).toFixed(1)} %`;
    S.status(`Bars: 95 % intervals over ${taught.n} seeds. pcoreset after ${taught.xs.at(-1)} labels: ${said(taught)} with the teacher, ${said(alone)} without.`);
  }
  S.onReset(() => { part = parts[0]; menu.set(null, part.name); key.clear(); show(); });
  show();
  return S.close;
}

export default { render };
