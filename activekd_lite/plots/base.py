"""What all figures share: the house template, their data as a table, a sentence for who cannot see them, pictures on hover.

Sentence, pictures and a table that is not too long are inside `layout.meta`, so they go where the figure goes: into a
notebook, a page, a widget. Colours are Okabe and Ito's and three of Tol's, told apart by colour-blind readers; what has a
colour has a marker of its own as well.
"""

import base64
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import torch
import torch.nn.functional as F
from PIL import Image
from plotly.offline import get_plotlyjs
from torch import Tensor

from activekd_lite.utils.files import write_atomic
from activekd_lite.utils.images import ImageFiles

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999933",
    "#882255",
    "#44AA99",
)
MARKERS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "x",
    "star",
    "pentagon",
    "hexagram",
    "triangle-down",
)
INK, PALE = "#222222", "#D4D4D4"
SEQUENTIAL = "Cividis"  # for numbers: its order is seen in grey and by colour-blind readers, too
AXIS = dict(
    gridcolor="#E6E6E6",
    linecolor="#444444",
    zerolinecolor="#CFCFCF",
    title_standoff=10,
    automargin=True,
)
PLOTLY = "application/vnd.plotly.v1+json"
UPLOAD = "sendChartToCloud"  # plotly 7 adds a button of this name, which sends the figure's data to Plotly Cloud
CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": [UPLOAD]}
TEMPLATE = go.layout.Template(
    layout=dict(
        colorway=COLOURS, font=dict(size=16, color=INK, family="Helvetica, Arial, sans-serif"), height=520, hovermode="closest",
        title=dict(x=0.01, xanchor="left", font_size=19), margin=dict(t=64, r=20, b=60, l=70), paper_bgcolor="white",
        plot_bgcolor="white", xaxis=AXIS, yaxis=AXIS, hoverlabel=dict(font_size=15),
        coloraxis=dict(colorscale=SEQUENTIAL), modebar=dict(remove=[UPLOAD]),
    )
)  # fmt: skip
pio.templates["activekd"] = TEMPLATE  # for plotly.express: px.line(..., template="activekd")
NAMED = 12  # more groups have no legend: hover names them
SHOWN_ROWS = 200  # a longer table stays in Python
PNG_WIDTH = 1000  # pixels of the static picture that goes beside a live figure


class Figure(go.Figure):
    """A plotly figure with the house template: `Figure(px.line(frame, ...), table=frame, alt="Accuracy rises to 90 %.")`.

    table: what it shows, as a DataFrame; alt: the same in a sentence or two: what a screen reader says, and its plain text.
    pictures: of `picture_sheet`, shown on hover in a saved page, for points whose customdata[0] is a pool index. linked: how
    many traces a panel has, where trace i + linked shows the points of trace i again: hovering one rings the other.
    """

    table: pd.DataFrame | None = None

    def __init__(
        self, data=None, layout=None, *args, table: pd.DataFrame | None = None, alt: str = "", pictures: dict | None = None,
        linked: int | None = None, **kwargs,
    ):  # fmt: skip
        super().__init__(data, layout, *args, **kwargs)
        if alt:
            meta = {"alt": alt, "pictures": pictures, "linked": linked}
            if table is not None and len(table) <= SHOWN_ROWS:
                meta["table"] = json.loads(table.round(4).to_json(orient="split", index=False))
            self.update_layout(template=TEMPLATE, meta={k: v for k, v in meta.items() if v})
        self.table = table

    @property
    def alt(self) -> str:
        return (self.layout.meta or {}).get("alt", "")

    def write_page(self, path: str | os.PathLike) -> None:
        """A page of its own, plotly.js inside: it opens without a network."""
        title, script = self.layout.title.text or "figure", f"<script>{get_plotlyjs()}</script>"
        write_atomic(
            Path(path), PAGE.format(title=html.escape(title), head=script, body=html_of(self))
        )

    def _ipython_display_(self) -> None:
        """As plotly does it, but the plain text and the picture's description are `alt`."""
        from IPython.display import display

        bundle = self._repr_mimebundle_(width=PNG_WIDTH)
        if not bundle:  # a renderer that opens a window
            return super()._ipython_display_()
        described = {kind: {"alt": self.alt} for kind in bundle if kind.startswith("image/")}
        display(bundle | {"text/plain": self.alt}, raw=True, metadata=described)


def fewer_colours(png: str) -> str:
    """A PNG in base64 with 256 colours: a third of the size, and a notebook holds many."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        file, format="png", optimize=True
    )
    return base64.b64encode(file.getvalue()).decode()


def html_of(figure: go.Figure | dict) -> str:
    """A figure, or its JSON, as part of a page that has loaded plotly.js: live, described, pictures on hover, table below."""
    fields = figure if isinstance(figure, dict) else json.loads(figure.to_json())
    meta = fields["layout"].get("meta") or {}
    live = pio.to_html(
        fields, config=CONFIG, include_plotlyjs=False, full_html=False, validate=False, auto_play=False, post_script=HOVER,
    )  # fmt: skip
    return f'<div role="img" aria-label="{html.escape(meta.get("alt", "figure"))}">{live}</div>\n{table_of(meta)}'


def table_of(meta: Mapping) -> str:
    """The table in a figure's `layout.meta` as HTML, folded; empty where there is none."""
    if "table" not in meta:
        return ""
    table = pd.DataFrame(meta["table"]["data"], columns=meta["table"]["columns"])
    rows = table.to_html(index=False, na_rep="", border=0)
    return f'<details><summary>The data of this figure</summary><div style="overflow-x: auto">{rows}</div></details>'


def picture_sheet(
    images: Tensor | ImageFiles, *, side: int = 48, most: int = 2000, budget_bytes: int = 60_000
) -> dict:
    """Small pictures of the images (N, 3, H, W) uint8, or of `most` of them spread evenly, on one sheet; JSON-ready.

    "sheet": a data URI; "side": pixels of a picture, as many up to `side` as fit budget_bytes (at least 8); "columns" of the
    sheet; "step": image i is picture i / step, where that is a whole number.
    """
    if len(images) == 0:
        raise ValueError("no images to make pictures of")
    step = -(-len(images) // most)
    small = squares(images, range(0, len(images), step), min(side, images.shape[-1]))
    columns = int(np.ceil(np.sqrt(len(small))))
    while (
        len(sheet := data_uri(tiled(small, columns), quality=70)) > budget_bytes
        and small.shape[-1] > 8
    ):
        small = F.interpolate(small.float(), max(8, small.shape[-1] * 3 // 4), mode="area").byte()
    return {"sheet": sheet, "side": small.shape[-1], "columns": columns, "step": step}


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """Colours and markers go round at different places, so 100 groups have a pair of their own."""
    return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def squares(images: Tensor | ImageFiles, indices: Sequence[int], side: int) -> Tensor:
    """The images `indices` as (n, 3, side, side) uint8; small ones are enlarged with hard pixels, large ones averaged."""
    if isinstance(images, ImageFiles):
        return images.squares(torch.as_tensor(indices), side)
    mode = "nearest" if images.shape[-1] <= side else "area"
    parts = torch.as_tensor(indices).split(256)
    return torch.cat(
        [
            F.interpolate(images[part].cpu().float(), (side, side), mode=mode).byte()
            for part in parts
        ]
    )


def tiled(pictures: Tensor, columns: int) -> np.ndarray:
    """(n, 3, S, S) uint8, row by row, as one picture (rows S, columns S, 3); white where there is none."""
    n, _, s, _ = pictures.shape
    rows = -(-n // columns)
    canvas = torch.full((rows * columns, 3, s, s), 255, dtype=torch.uint8)
    canvas[:n] = pictures
    return (
        canvas.view(rows, columns, 3, s, s)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * s, columns * s, 3)
        .numpy()
    )


def data_uri(picture: np.ndarray, quality: int | None = None) -> str:
    """(H, W, 3) uint8 inside a string, what a browser can show without a file: as PNG, or with a quality (1-100) as WebP."""
    file, kind = io.BytesIO(), "png" if quality is None else "webp"
    Image.fromarray(picture).save(
        file, format=kind, **({} if quality is None else {"quality": quality, "method": 4})
    )
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>body {{ font: 16px/1.5 Helvetica, Arial, sans-serif; margin: 1rem auto; max-width: 1100px;
padding: 0 1rem }} table {{ border-collapse: collapse }} td, th {{ padding: 0.2em 0.8em; text-align: right }}</style>
{head}</head><body>
{body}
</body></html>
"""

# Runs in the page once a figure is drawn; plotly puts the figure's id in the place of {plot_id}.
HOVER = """
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
"""
