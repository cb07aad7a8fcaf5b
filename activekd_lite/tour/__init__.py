"""The tour: one page that shows the method on real digits, without a kernel and without a network.

Its explorers are those of `activekd_lite.widgets`. The answers that a kernel gives to them are
given by `tour.js`, from what is stored in the page.
"""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from activekd_lite.analysis import statistics
from activekd_lite.cache import TeacherCache
from activekd_lite.course.pages import render
from activekd_lite.datasets import load_dataset
from activekd_lite.experiments import sweep
from activekd_lite.loop import run_active_learning
from activekd_lite.plots.base import picture_sheet
from activekd_lite.plots.inheritance import class_look
from activekd_lite.pool import Dataset, LabelState, Predictions
from activekd_lite.strategies import STRATEGIES
from activekd_lite.teacher import ZeroShotTeacher
from activekd_lite.utils.files import make_folder, write_atomic
from activekd_lite.utils.seeding import generator
from activekd_lite.vlm import VLM, load_vlm
from activekd_lite.widgets import InheritanceExplorer, PCoreSetStepper, SimplexExplorer
from activekd_lite.widgets.page import SHARED, WEB, Page

HERE = Path(__file__).parent
EXPLORERS = ("simplex", "inheritance", "stepper")
OWN = ("ask", "curves")  # explorers that only the tour has
BESIDE = ("random", "uncertainty", "coreset", "badge", "classbalanced")
WORDINGS = ('a photo of the number: "{}".', "{}", "a drawing of a {}.", "the red {}.")
ASKED = 24  # images to ask the teacher about
BUDGET = 15  # picks in "cover it"
STUDIED = {"shapes": "shapes, zero-shot", "digits": "digits, zero-shot"}


def write(
    out: str | os.PathLike = "tour.html", *, cache_root: str | os.PathLike = ".cache"
) -> Path:
    """Write the tour to the file `out`, and return its path.

    It encodes `digits` with the embedded VLM, unless `cache_root` has it, and trains two students:
    about half a minute on two cores.
    """
    data, vlm = load_dataset("digits", cache_root=cache_root), load_vlm(device="cpu")
    cache = TeacherCache.build(vlm, data.pool, root=cache_root, progress=False)
    teacher = ZeroShotTeacher(cache, vlm.text_weights(data.classnames, data.templates))
    first = run_active_learning(
        data, teacher, strategy="random", rounds=0, device="cpu", progress=False
    )
    predictions = first.predict(data.pool.images)
    student = Predictions(predictions.probs.cpu(), predictions.features.cpu())
    scenes = {
        "ask": _ask(data, vlm, cache),
        "simplex": _simplex(data, teacher),
        "inheritance": _inheritance(data, teacher),
        "stepper": _stepper(data, student, first.state),
        "curves": {"view": {"parts": _curves(), "status": ""}},
    }
    parts = {"script": _script(), "style": _style(), "scenes": _embedded(scenes)}
    page = render("tour.html.j2", HERE, **parts)
    out = Path(out)
    write_atomic(make_folder(out.parent) / out.name, page)
    return out


def _ask(data: Dataset, vlm: VLM, cache: TeacherCache) -> dict:
    """Some images, and what the teacher says of them in each wording."""
    order = torch.randperm(len(data.pool), generator=generator(0, "tour"))[:ASKED]
    answers = []
    for wording in WORDINGS:
        teacher = ZeroShotTeacher(cache, vlm.text_weights(data.classnames, (wording,)))
        probs = teacher.probs().cpu()
        right = probs.argmax(dim=1) == data.oracle.label(torch.arange(len(data.pool)))
        answers.append(
            {
                "wording": wording,
                "accuracy": round(100 * right.double().mean().item(), 1),
                "probs": probs[order].double().round(decimals=3).tolist(),
            }
        )
    sheet = picture_sheet(data.pool.images[order], most=ASKED, side=64)
    view = {
        "classes": list(data.classnames),
        "truth": data.oracle.label(order).tolist(),
        "answers": answers,
        "size": ASKED,
        "status": "",
    }
    return {"view": view, "sheet": sheet | {"count": ASKED}}


def _simplex(data: Dataset, teacher: ZeroShotTeacher) -> dict:
    probs = teacher.probs().cpu()
    explorer = SimplexExplorer(data, {"teacher": probs}, layouts={"UMAP": umap_of(probs)})
    state = _state(explorer)
    state["view"] |= {"hands": "drag: lasso · click, then wheel: zoom · arrows: neighbours"}
    return state | {"probs": _floats(probs)}


def umap_of(probs: Tensor) -> np.ndarray:
    import umap  # slow

    return umap.UMAP(random_state=0, n_jobs=1).fit_transform(probs.numpy())


def _inheritance(data: Dataset, teacher: ZeroShotTeacher) -> dict:
    explorer = InheritanceExplorer(data, teacher, picks=0)
    _ = explorer.student  # trained now: no kernel will do it later
    state = _state(explorer)
    state["view"] |= {"trainable": False, "strategies": ["nothing"]}
    return state


def _stepper(data: Dataset, student: Predictions, state: LabelState) -> dict:
    """The state of a stepper, with the picks of the strategies to compare instead of distances.

    The page computes PCoreSet's picks and all distances from `probs`.
    """
    found = _state(PCoreSetStepper(data, student, state, budget=BUDGET))
    given = {}
    for name in BESIDE:
        draw = generator(0, "selection", 0)
        given[name] = STRATEGIES[name](student, state, BUDGET, generator=draw).tolist()
    for name in ("ours", "other", "mine"):
        del found[name]
    found["view"] |= {"others": list(BESIDE), "given": given}
    return found | {"probs": _floats(student.probs)}


def _floats(probs: Tensor) -> bytes:
    """Little-endian float32."""
    return probs.cpu().numpy().astype("<f4").tobytes()


def _curves() -> list[dict]:
    """Learning curves of the embedded study, with and without the teacher."""
    settings, parts = statistics.settings(sweep.load(sweep.STUDY)), []
    for name, setting in STUDIED.items():
        curves, lines = statistics.curves_frame(settings[setting]), []
        for (strategy, distill), curve in curves.groupby(["strategy", "distill"], sort=False):
            look = class_look(list(curves["strategy"].unique()).index(strategy))
            values = curve[["labeled_count", "mean", "half_width"]].round(2)
            columns = dict(zip(("xs", "ys", "half"), values.T.to_numpy().tolist(), strict=True))
            known = {"strategy": strategy, "distill": bool(distill), "n": int(curve["n"].min())}
            lines.append(known | {"colour": look[0], "marker": look[1]} | columns)
        level = sweep.teachers(sweep.STUDY)[name, "zero-shot"]
        parts.append({"name": name, "lines": lines, "teacher": level})
    return parts


def _state(explorer: SimplexExplorer | InheritanceExplorer | PCoreSetStepper) -> dict:
    """What the page of an explorer knows: its dictionaries, and arrays as bytes."""
    page = explorer.widget
    assert isinstance(page, Page)
    names = [name for name in page.keys if name not in ("hovered", "chosen") and name[0] != "_"]
    state = {name: getattr(page, name) for name in names}
    explorer.close()
    return {name: value for name, value in state.items() if isinstance(value, dict | bytes)}


def _embedded(scenes: Mapping[str, dict]) -> str:
    """JSON that is safe in a script element; bytes become {"bytes": base64}."""
    text = json.dumps(
        scenes, default=lambda value: {"bytes": base64.b64encode(value).decode()}, allow_nan=False
    )
    return text.replace("<", "\\u003c")


def _script() -> str:
    """The scripts of all explorers in one module; each one's `render` is `RENDER[name]`."""
    shared = [(WEB / f"{name}.js").read_text(encoding="utf-8") for name in SHARED]
    parts = ["const RENDER = {};"]
    for name in (*EXPLORERS, *OWN):
        folder = WEB if name in EXPLORERS else HERE
        text = (folder / f"{name}.js").read_text(encoding="utf-8")
        body = text.replace("export default { render };", f"RENDER.{name} = render;")
        parts.append(f"{{\n{body}\n}}")
    return "\n".join([*shared, *parts, (HERE / "tour.js").read_text(encoding="utf-8")])


def _style() -> str:
    paths = [WEB / f"{name}.css" for name in ("shell", *EXPLORERS)] + [HERE / "tour.css"]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)
