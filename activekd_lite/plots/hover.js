// Runs in the page once a figure is drawn; plotly replaces {plot_id} by the figure's id.
(function () {
  const figure = document.getElementById('{plot_id}'), meta = figure.layout.meta || {}, pictures = meta.pictures;
  const add = (css) => { const e = document.createElement('div'); document.body.appendChild(e);
    e.style.cssText = 'position:absolute;pointer-events:none;display:none;z-index:1000;' + css; return e; };
  const tip = add('border:2px solid #222;background-color:#fff;background-repeat:no-repeat;');
  const rings = {};
  function showPicture(point, event) {
    const index = point.customdata && point.customdata[0];
    if (!pictures || index === undefined || index % pictures.step) return;
    const tile = index / pictures.step, size = 96, c = pictures.columns;
    Object.assign(tip.style, { display: 'block', width: size + 'px', height: size + 'px',
      backgroundImage: 'url(' + pictures.sheet + ')', backgroundSize: c * size + 'px auto',
      backgroundPosition: -(tile % c) * size + 'px ' + -Math.floor(tile / c) * size + 'px',
      imageRendering: pictures.side < 32 ? 'pixelated' : 'auto',
      left: event.pageX + 18 + 'px', top: Math.max(window.scrollY, event.pageY - size - 18) + 'px' });
  }
  function ringOther(point) {
    if (!meta.linked) return;
    const traces = figure._fullData, box = figure.getBoundingClientRect();
    traces.forEach((other, place) => {
      if (place === point.curveNumber || place % meta.linked !== point.curveNumber % meta.linked) return;
      const axis = (name) => figure._fullLayout[name[0] + 'axis' + name.slice(1)];
      const xaxis = axis(other.xaxis), yaxis = axis(other.yaxis);
      rings[place] = rings[place] || add('width:18px;height:18px;border:3px solid #000;border-radius:50%;' +
        'box-sizing:border-box;');
      Object.assign(rings[place].style, { display: 'block',
        left: window.scrollX + box.left + xaxis._offset + xaxis.l2p(other.x[point.pointNumber]) - 9 + 'px',
        top: window.scrollY + box.top + yaxis._offset + yaxis.l2p(other.y[point.pointNumber]) - 9 + 'px' });
    });
  }
  figure.on('plotly_hover', (e) => { showPicture(e.points[0], e.event); ringOther(e.points[0]); });
  figure.on('plotly_unhover', () => [tip, ...Object.values(rings)].forEach((e) => { e.style.display = 'none'; }));
})();
