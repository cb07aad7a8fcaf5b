"""Slides of the notebooks: one file each, which needs no network and prints one slide per page.

Cells tagged `slide` begin a slide, those tagged `on-slide` continue it. In a notebook without a
cell tagged `slide` the headings decide: a slide for the title, for the first paragraphs of each
section, for the outputs of each cell, for each exercise (without hints and solution) and each
question. The other paragraphs become notes of the slide before, which the key N shows.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from activekd_lite.course.handouts import LINK
from activekd_lite.course.notebooks import find
from activekd_lite.course.pages import (
    LEARN,
    QUESTION,
    import_extra,
    read_notebook,
    render,
    title,
    with_mathml,
)
from activekd_lite.utils.files import make_folder, write_atomic

SLIDE, MORE = "slide", "on-slide"  # tags
NOT_SHOWN = {"parameters", "exercise", "exercise-check", "nbval-check-output"}
NOT_SECTIONS = ("Exercises", "Where next")
MOST = (
    1100  # characters per slide, of text or as much room; the rest goes to another, or to the notes
)
PICTURE, ROW = 800, 60  # the room of a picture, and of a row of a table
PREDICTION, RESULT = "Before you look", "Your prediction, and the result"
IN_FULL = (PREDICTION, "What we measured", "Exercise ")  # headings of texts that are shown in full
FOLDED = re.compile(r"<details>.*?</details>\s*", re.S)
HEADING = re.compile(r"^(?=#{1,3} )", re.M)
ITEM = re.compile(r"- |\d+\. ")  # of a list
BLOCK = re.compile(rf"\n\s*\n(?!\|)|\n(?={ITEM.pattern})")  # between paragraphs and items
RATED = re.compile(r"(\d · .+) \((difficulty .+)\)")
PROGRESS = re.compile(r"^.*\d+%\|.*\n?", re.M)


@dataclass
class Slide:
    """A heading, pieces of HTML below it, and notes for the speaker in markdown."""

    heading: str
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def room(self) -> int:
        """Estimate how much of `MOST` the parts take."""
        shown = "".join(self.parts)
        text = re.sub(r"<(style|table|svg).*?</\1>|<[^>]+>", "", shown, flags=re.S)
        return PICTURE * shown.count("<img ") + ROW * shown.count("<tr") + len(text)


def write(
    names: Sequence[str] = (),
    to: str | os.PathLike = "slides",
    *,
    folder: str | os.PathLike | None = None,
) -> list[Path]:
    """Write slides of notebooks, as they are stored, into the folder `to`; return the paths.

    names: empty for all. folder: of the notebooks, by default that of the clone.
    Raises ValueError for a notebook without outputs, since its figures would be missing.
    """
    decks = {}
    for path in find(names, folder):
        notebook = read_notebook(path)
        if not any(cell.get("outputs") for cell in notebook["cells"]):
            raise ValueError(
                f"{path.name} has no outputs, so its slides had no figures; run it first"
            )
        decks[Path(to) / f"{path.stem}.html"] = deck(notebook)
    for path, text in decks.items():
        write_atomic(make_folder(path.parent) / path.name, text)
    return [*decks]


def deck(notebook: Mapping) -> str:
    """Return the slides of an executed notebook as one HTML page."""
    cells = notebook["cells"]
    tagged = any(SLIDE in _tags(cell) for cell in cells)
    slides = [*(_tagged(cells) if tagged else _by_headings(cells))]
    shown = [
        {"heading": s.heading, "parts": s.parts, "notes": _html("\n\n".join(s.notes))}
        for s in slides
    ]
    return render("slides.html.j2", title=title(notebook), slides=shown)


def _tags(cell: Mapping) -> list[str]:
    return cell["metadata"].get("tags", [])


def _tagged(cells: Sequence[Mapping]) -> Iterator[Slide]:
    slide = None
    for cell in cells:
        tags = _tags(cell)
        if slide and SLIDE in tags:
            yield slide
        if SLIDE in tags:
            slide = Slide(slide.heading if slide else "")
        if slide and {SLIDE, MORE} & {*tags}:
            if cell["cell_type"] == "code":
                slide.parts += _outputs(cell)
            else:
                heading, text = _heading(FOLDED.sub("", cell["source"]))
                slide.heading = heading or slide.heading
                slide.parts.append(_html(text))
    if slide:
        yield slide


def _by_headings(cells: Sequence[Mapping]) -> list[Slide]:
    slides = [_title_slide(cells)]
    for place, cell in enumerate(cells[1:], start=1):
        if cell["cell_type"] == "markdown":
            for text in HEADING.split(FOLDED.sub("", cell["source"])):
                _add_text(slides, text)
        elif not NOT_SHOWN & {*_tags(cell)} and place > 3:  # the first three prepare
            if parts := _outputs(cell):
                _add_outputs(slides, parts, QUESTION in _tags(cell))
    return [slide for slide in slides if slide.parts]


def _add_outputs(slides: list[Slide], parts: list[str], asks: bool) -> None:
    """Add outputs to the last slide if there is room, else as a slide of their own."""
    last = slides[-1]
    predicts = last.heading.startswith(PREDICTION)
    if asks or predicts or last.room() + Slide("", parts).room() > MOST:
        heading = "A question" if asks else RESULT if predicts else last.heading
        slides.append(Slide(heading, parts))
    else:
        last.parts += parts


def _title_slide(cells: Sequence[Mapping]) -> Slide:
    heading, _ = _heading(cells[0]["source"])
    learn = LEARN.search(cells[0]["source"])
    slide = Slide(heading, [_html(learn[0])] if learn else [])
    pictures = (cell for cell in cells[:4] if "you_are_here(" in cell["source"])
    return Slide(heading, slide.parts + [part for cell in pictures for part in _outputs(cell)])


def _add_text(slides: list[Slide], text: str) -> None:
    """Add a section's first paragraphs as a slide, or as several if all of it must be shown."""
    heading, body = _heading(text)
    if not heading or heading in NOT_SECTIONS:
        if heading != "Where next":
            slides[-1].notes.append(body)
    else:
        if rated := RATED.fullmatch(heading):
            heading, body = f"Exercise {rated[1]}", f"*{rated[2]}*\n\n{body}"
        first, *rest = _in_pieces(body)
        slides.append(Slide(heading, [_html(first)]))
        while rest and (heading.startswith(IN_FULL) or ITEM.match(rest[0])):
            slides.append(Slide(heading, [_html(rest.pop(0))]))
        slides[-1].notes += rest


def _heading(text: str) -> tuple[str, str]:
    """Split a text into its heading, "" if it has none, and what follows."""
    found = re.match(r"\s*#{1,3} (.+)\n?", text)
    return (found[1].strip(), text[found.end() :].strip()) if found else ("", text.strip())


def _in_pieces(text: str) -> list[str]:
    """Split markdown between paragraphs or items so that each piece fits on a slide."""
    pieces, start, end = [], 0, 0
    for place in [found.start() for found in BLOCK.finditer(text)] + [len(text)]:
        whole = text.count("$$", 0, place) % 2 == 0 and text.count("```", 0, place) % 2 == 0
        if not whole:
            continue
        if end > start and place - start > MOST:
            pieces.append(text[start:end].strip())
            start = end
        end = place
    return [*pieces, text[start:].strip()]


def _html(markdown: str) -> str:
    convert = import_extra("nbconvert.filters").markdown2html
    return convert(with_mathml(LINK.sub(r"\1", markdown))) if markdown.strip() else ""


def _outputs(cell: Mapping) -> list[str]:
    """Return the figures (as pictures), tables and printed text of a cell as HTML."""
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = PROGRESS.sub("", output.get("text", "")).strip()
        if "image/png" in data:
            alt = output["metadata"].get("image/png", {}).get("alt", "")
            source = f"data:image/png;base64,{data['image/png'].strip()}"
            parts.append(f'<img src="{source}" alt="{escape(alt)}">')
        elif "text/html" in data:
            parts.append(data["text/html"])
        elif text:
            parts.append(f"<pre>{escape(text)}</pre>")
    return parts
