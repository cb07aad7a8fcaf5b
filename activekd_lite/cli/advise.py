"""`activekd-lite advise`."""

from typing import Annotated

from cyclopts import Parameter

from activekd_lite.analysis.advice import AGAINST, Advice, advise, load_study
from activekd_lite.analysis.statistics import interval_text
from activekd_lite.cli import card as cards
from activekd_lite.cli import options as opt
from activekd_lite.experiments import sweep


def command(
    *,
    dataset: Annotated[str, Parameter(help=opt.DATASET)] = "digits",
    teacher: Annotated[str, Parameter(help=opt.TEACHER, validator=opt.known_teacher)] = "zero-shot",
    device: Annotated[str, Parameter(help=opt.DEVICE)] = "auto",
    config: Annotated[cards.Config, opt.FLAT] = cards.Config(),
    train: Annotated[opt.Train, opt.FLAT] = opt.Train(),
    folders: Annotated[opt.Folders, opt.FLAT] = opt.Folders(),
) -> None:
    """Print the card of a task, and what the study over tasks says of those most like it.

    The first student is trained as in the study, unless options say otherwise.
    """
    studied, results = load_study()
    as_studied = sweep.Grid.read(sweep.STUDY / "tasks.yaml").train
    changes = dict(as_studied) | opt.train_changes(train)
    card = cards.compute(dataset, teacher, device, config, changes, folders)
    cards.show(card)
    print()
    print(describe(advise(card, studied, results), len(studied)))


def describe(advice: Advice, tasks: int) -> str:
    """Put advice into words. tasks: how many were studied."""
    nearest, ranks = advice.nearest, advice.mean_ranks
    lines = []
    if advice.outside:
        lines.append("Unlike anything studied, so what follows is a guess:")
        for name, (here, low, high) in advice.outside.items():
            lines.append(f"  {name} is {here:.4g}; in the study {low:.4g} to {high:.4g}")
    lines.append(f"The {len(nearest)} most similar of {tasks} tasks (leads of pcoreset in points):")
    lines.append(nearest.to_string(index=False, float_format=lambda x: f"{x:.1f}"))
    for rival in AGAINST:
        lead = interval_text(*advice.lead(rival), "+")
        lines.append(f"pcoreset is ahead of {rival} by {lead} points ({len(nearest)} tasks).")
    best = ", ".join(f"{name} {rank:.1f}" for name, rank in ranks.head(3).items())
    lines.append(f"Best mean ranks of {len(ranks)} strategies: {best}.")
    return "\n".join(lines)
