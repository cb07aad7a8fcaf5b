"""The picture that opens each notebook: teacher, student, picks and oracle, and where you are.

It is drawn as SVG in the text's colour and two accents that can be told from the background of
JupyterLab's light and dark theme.
"""

import html

from activekd_lite.course.fragment import Fragment

ACCENT, PICK = "#1B87D0", "#D55E00"  # 3:1 or more on white and on #212121
LOOP = ("student", "cover", "oracle", "train")
STEPS = {  # what a notebook is about: the parts to emphasise, and their name
    "loop": (("teacher", *LOOP), "the whole loop"),
    "teacher": (("teacher",), "the teacher's answers"),
    "student": (("teacher", "student"), "from the teacher's answers to the student's"),
    "cover": (("cover",), "covering the student's answers"),
    "select": (("cover",), "which images to ask about"),
    "run": (LOOP, "one run, round after round"),
    "compare": (LOOP, "many runs, compared"),
    "fewshot": (("teacher", "train"), "teachers that learn, teachers that are wrong"),
    "when": (("student", "cover"), "when covering pays"),
    "oracle": (("oracle",), "you are the oracle"),
    "yours": (("teacher", "oracle"), "your images, your model"),
    "paper": (("teacher", *LOOP), "the whole loop, with the paper's settings"),
}
CENTRES = {"teacher": 62, "student": 206, "cover": 350, "oracle": 490}
NAMES = {"teacher": "teacher's answers", "student": "student's answers"}
NAMES |= {"cover": "picks cover them", "oracle": "ask the oracle"}
DOTS = {  # offsets from the middle of a triangle's base, in clusters near the corners
    "teacher": "-25,-6 -20,-5 -23,-12 -17,-10 23,-5 26,-9 18,-6 -3,-36 2,-41 3,-33 20,-12",
    "student": "-24,-6 -19,-5 -20,-11 22,-5 17,-10 -2,-38 4,-36 1,-31",
    "cover": "-25,-6 -20,-5 -20,-11 23,-5 18,-10 -2,-39 3,-36 0,-31 9,-23 -11,-20 2,-7",
}
ARROWS = ((-11, -7, -3, -25), (10, -7, 3, -25))  # the student moves some answers
PICKS = ((-3, -11), (13, -19), (-12, -23))
BASE = 76  # y of the triangles' base


def you_are_here(step: str) -> Fragment:
    """Draw the course's picture with the parts that `step` is about emphasised and named.

    step: one of `STEPS`. Returns an object that notebooks and saved pages show.
    Raises ValueError for an unknown step.
    """
    if step not in STEPS:
        raise ValueError(f"unknown step {step!r}; known are {', '.join(STEPS)}")
    parts, name = STEPS[step]
    alt = (
        "The teacher's answers form clusters, the student takes them over, picks cover the "
        "student's answers, the oracle labels the picks, and the student is trained again. "
        f"You are here: {name}."
    )
    body = "".join(_station(part, part in parts) for part in CENTRES)
    body += _arrow("teacher", "student", "student" in parts and "teacher" in parts)
    body += _arrow("student", "cover", "student" in parts and "cover" in parts)
    body += _arrow("cover", "oracle", "oracle" in parts and "cover" in parts) + _back(parts)
    label = f'<text x="280" y="15" font-size="14" font-weight="bold">You are here: {name}</text>'
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 126" width="560" role="img" '
        f'aria-label="{html.escape(alt)}" style="max-width:100%;height:auto" fill="currentColor" '
        'stroke="none" font-family="Helvetica,Arial,sans-serif" font-size="12" '
        f'text-anchor="middle">{label}{body}</svg>'
    )
    return Fragment(svg, alt)


def _station(part: str, on: bool) -> str:
    """A triangle or the oracle with its name, framed if it is emphasised."""
    x = CENTRES[part]
    shape = _oracle() if part == "oracle" else _triangle(part, on)
    weight = ' font-weight="bold"' if on else ""
    frame = f'<rect x="-58" y="-52" width="116" height="73" rx="6" fill="none" stroke="{ACCENT}" '
    frame = frame + 'stroke-width="2"/>' if on else ""
    text = f'<text y="15"{weight}>{NAMES[part]}</text>'
    return f'<g transform="translate({x},{BASE})">{frame}{shape}{text}</g>'


def _triangle(part: str, on: bool) -> str:
    width = 2 if on else 1
    side = f'<path d="M-32 0H32L0-47Z" fill="none" stroke="currentColor" stroke-width="{width}"/>'
    points = (point.split(",") for point in DOTS[part].split())
    dots = "".join(f"M{x} {y}h0" for x, y in points)
    drawn = f'<path d="{dots}" stroke="{ACCENT}" stroke-width="4" stroke-linecap="round"/>'
    if part == "student":
        arrows = "".join(_head(*arrow) for arrow in ARROWS)
        drawn += f'<path d="{arrows}" fill="none" stroke="{PICK}" stroke-width="1.5"/>'
    if part == "cover":
        rings = "".join(f"M{x - 4} {y}a4 4 0 1 0 8 0a4 4 0 1 0-8 0" for x, y in PICKS)
        drawn += f'<path d="{rings}" fill="none" stroke="{PICK}" stroke-width="2"/>'
    return side + drawn


def _oracle() -> str:
    return (
        '<rect x="-18" y="-42" width="36" height="36" rx="4" fill="none" stroke="currentColor"/>'
        f'<text y="-17" font-size="20" font-weight="bold" fill="{PICK}">?</text>'
    )


def _head(x0: float, y0: float, x1: float, y1: float) -> str:
    """A line that ends in an arrow head, which points up."""
    return f"M{x0} {y0}L{x1} {y1}m-3 4l3-4l3 3"


def _arrow(start: str, end: str, on: bool) -> str:
    x0, x1 = CENTRES[start] + 60, CENTRES[end] - 61
    path = f"M{x0} {BASE - 20}H{x1}m-6-5l6 5l-6 5"
    return _line(path, on)


def _back(parts: tuple[str, ...]) -> str:
    """The way back from the oracle to the student, along which it is trained again."""
    x0, x1, low = CENTRES["oracle"], CENTRES["student"], BASE + 38
    on = "train" in parts
    path = f"M{x0} {BASE + 23}V{low}H{x1}V{BASE + 24}m-5 6l5-6l5 6"
    weight = ' font-weight="bold"' if on else ""
    return _line(path, on) + f'<text x="348" y="{low - 4}"{weight}>train again</text>'


def _line(path: str, on: bool) -> str:
    colour, width = (ACCENT, 2.5) if on else ("currentColor", 1)
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
