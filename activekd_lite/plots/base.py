"""What all figures share: template, data table, alternative text, and images shown on hover.

The alternative text, the hover images and a table that is not too long are stored in `layout.meta`,
so they travel with the figure into notebooks, pages and widgets. The colours (Okabe and Ito's, and
three of Tol's) suit colour-blind readers, and every colour has its own marker.
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
from torch import Tensor

from activekd_lite.utils.files import write_atomic
from activekd_lite.utils.images import ImageFiles

COLOURS = tuple(
    "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #999933 #882255 #44AA99".split()
)
MARKERS = tuple(
    "circle square diamond triangle-up cross x star pentagon hexagram triangle-down".split()
)
INK, PALE = "#222222", "#D4D4D4"
SEQUENTIAL = "Cividis"  # for numbers: readable in grey and by colour-blind readers
GRID = dict(gridcolor="#E6E6E6", linecolor="#444444", zerolinecolor="#CFCFCF")
AXIS = dict(**GRID, title_standoff=10, automargin=True)
PLOTLY = "application/vnd.plotly.v1+json"
UPLOAD = "sendChartToCloud"  # a button of plotly 7 that sends the figure's data to Plotly Cloud
CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": [UPLOAD]}
TEMPLATE = go.layout.Template(
    layout=dict(
        colorway=COLOURS,
        coloraxis=dict(colorscale=SEQUENTIAL),
        font=dict(size=16, color=INK, family="Helvetica, Arial, sans-serif"),
        title=dict(x=0.01, xanchor="left", font_size=19),
        height=520,
        margin=dict(t=64, r=20, b=60, l=70),
        paper_bgcolor="white",
        plot_bgcolor="white",
        xaxis=AXIS,
        yaxis=AXIS,
        hovermode="closest",
        hoverlabel=dict(font_size=15),
        modebar=dict(remove=[UPLOAD]),
    )
)
pio.templates["activekd"] = TEMPLATE  # for plotly.express: px.line(..., template="activekd")
NAMED = 12  # with more groups the legend is omitted: names are shown on hover
SHOWN_ROWS = 200  # a longer table is kept in Python, but not in pages
PNG_WIDTH = 1000  # pixels of the static image saved with a live figure
HERE = Path(__file__).parent


class Figure(go.Figure):
    """A plotly figure with the package's template, a data table and an alternative text.

    `Figure(px.line(frame, ...), table=frame, alt="Accuracy rises to 90 %.")`

    Parameters
    ----------
    table
        The data shown.
    alt
        The same in a sentence or two, for screen readers and as plain text.
    pictures
        A `picture_sheet`. In a saved page, hovering a point whose customdata[0] is a pool index
        shows its image.
    linked
        Number of traces per panel, where trace i + linked shows the points of trace i again.
        Hovering a point in one panel rings it in the others.
    """

    table: pd.DataFrame | None = None

    def __init__(
        self,
        data=None,
        layout=None,
        *args,
        table: pd.DataFrame | None = None,
        alt: str = "",
        pictures: dict | None = None,
        linked: int | None = None,
        **kwargs,
    ):
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
        """Save the figure as a page that includes plotly.js and opens without a network."""
        page = render("page.html", title=self.layout.title.text or "figure", figure=html_of(self))
        write_atomic(Path(path), page)

    def _ipython_display_(self) -> None:
        """Display like plotly, with `alt` as the plain text and the image description."""
        from IPython.display import display

        bundle = self._repr_mimebundle_(width=PNG_WIDTH)
        if not bundle:  # a renderer that opens a window
            return super()._ipython_display_()
        described = {kind: {"alt": self.alt} for kind in bundle if kind.startswith("image/")}
        display(bundle | {"text/plain": self.alt}, raw=True, metadata=described)


def render(template: str, **fields) -> str:
    """Fill a page template of this folder; strings are escaped unless the template says `safe`."""
    from jinja2 import Environment, FileSystemLoader
    from plotly.offline import get_plotlyjs

    pages = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    return pages.get_template(template).render(plotly_js=get_plotlyjs(), **fields)


def html_of(figure: go.Figure | dict) -> str:
    """A live figure (or its JSON) for a page that has loaded plotly.js, followed by its table."""
    fields = figure if isinstance(figure, dict) else json.loads(figure.to_json())
    meta = fields["layout"].get("meta") or {}
    part = dict(include_plotlyjs=False, full_html=False, validate=False, auto_play=False)
    hover = (HERE / "hover.js").read_text(encoding="utf-8")
    live = pio.to_html(fields, config=CONFIG, post_script=hover, **part)
    alt = html.escape(meta.get("alt", "figure"))
    return f'<div role="img" aria-label="{alt}">{live}</div>\n{table_of(meta)}'


def table_of(meta: Mapping) -> str:
    """The table in a figure's `layout.meta` as folded HTML; "" if there is none."""
    if "table" not in meta:
        return ""
    table = pd.DataFrame(meta["table"]["data"], columns=meta["table"]["columns"])
    rows = table.to_html(index=False, na_rep="", border=0)
    summary = "<summary>Data of this figure</summary>"
    return f'<details>{summary}<div style="overflow-x: auto">{rows}</div></details>'


def fewer_colours(png: str) -> str:
    """Reduce a base64 PNG to 256 colours, a third of the size: a notebook holds many of them."""
    file, dither = io.BytesIO(), Image.Dither.NONE
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    reduced = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=dither)
    reduced.save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def picture_sheet(
    images: Tensor | ImageFiles, *, side: int = 48, most: int = 2000, budget_bytes: int = 60_000
) -> dict:
    """Small versions of the images, at most `most` of them evenly spaced, on one JSON-ready sheet.

    images: (N, 3, H, W) uint8.

    Returns
    -------
    dict
        - "sheet": a data URI
        - "side": pixels per image, at most `side` and at least 8, reduced to fit budget_bytes
        - "columns": images per row
        - "step": image i is at place i / step, if that is a whole number
    """
    if len(images) == 0:
        raise ValueError("no images to put on the sheet")
    step = -(-len(images) // most)
    small = squares(images, range(0, len(images), step), min(side, images.shape[-1]))
    columns = int(np.ceil(np.sqrt(len(small))))
    sheet = data_uri(tiled(small, columns), quality=70)
    while len(sheet) > budget_bytes and small.shape[-1] > 8:
        small = F.interpolate(small.float(), max(8, small.shape[-1] * 3 // 4), mode="area").byte()
        sheet = data_uri(tiled(small, columns), quality=70)
    return {"sheet": sheet, "side": small.shape[-1], "columns": columns, "step": step}


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """The marker of a group; shifted against the colours, so that 100 pairs are distinct."""
    return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def squares(images: Tensor | ImageFiles, indices: Sequence[int], side: int) -> Tensor:
    """Resize the images `indices` to (n, 3, side, side) uint8.

    Enlarging repeats pixels, shrinking averages them.
    """
    if isinstance(images, ImageFiles):
        return images.squares(torch.as_tensor(indices), side)
    mode = "nearest" if images.shape[-1] <= side else "area"
    parts = (images[part].cpu().float() for part in torch.as_tensor(indices).split(256))
    return torch.cat([F.interpolate(part, (side, side), mode=mode).byte() for part in parts])


def tiled(pictures: Tensor, columns: int) -> np.ndarray:
    """Arrange (n, 3, S, S) uint8 row by row in one image (rows S, columns S, 3), padded white."""
    n, _, s, _ = pictures.shape
    rows = -(-n // columns)
    canvas = torch.full((rows * columns, 3, s, s), 255, dtype=torch.uint8)
    canvas[:n] = pictures
    grid = canvas.view(rows, columns, 3, s, s).permute(0, 3, 1, 4, 2)
    return grid.reshape(rows * s, columns * s, 3).numpy()


def data_uri(picture: np.ndarray, quality: int | None = None) -> str:
    """Encode (H, W, 3) uint8 as a data URI: PNG, or WebP if a quality (1-100) is given."""
    file, kind = io.BytesIO(), "png" if quality is None else "webp"
    options = {} if quality is None else {"quality": quality, "method": 4}
    Image.fromarray(picture).save(file, format=kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
