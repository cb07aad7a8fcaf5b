"""`activekd-lite run`."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from activekd_lite.cli import options as opt
from activekd_lite.experiments.config import RunConfig
from activekd_lite.runs.folder import finished_rounds

COLUMNS = ["round", "labeled_count", "accuracy_pct", "calibration_error_pct", "covering_radius"]
Average = Literal["normalized", "raw"]
Config = opt.options_class(
    "Config",
    opt.option("student", str, opt.STUDENT, "the data set's own"),
    *opt.mirror(RunConfig, strategy=opt.STRATEGY),
    opt.option("selection_source", opt.SelectionSource, opt.SOURCE, "mixed"),
    opt.option("average", Average, "Average of the prompts' features.", "normalized; for clap raw"),
    opt.option("templates", list[str], "Prompts, {} for the class name.", "those of the data set"),
    opt.option("seed", int, "Seed of all random draws.", "0; with --paper 1"),
    *opt.POOL,
    *opt.LABELS,
    *opt.VLM,
)


def command(
    *,
    dataset: Annotated[str, Parameter(help=opt.DATASET)] = "digits",
    teacher: Annotated[str, Parameter(help=opt.TEACHER, validator=opt.known_teacher)] = "zero-shot",
    no_distill: bool = False,
    paper: bool = False,
    out: str = "runs/first",
    keep_students: bool = False,
    device: Annotated[str, Parameter(help=opt.DEVICE)] = "auto",
    config: Annotated[Config, opt.FLAT] = Config(),
    train: Annotated[opt.Train, opt.FLAT] = opt.Train(),
    folders: Annotated[opt.Folders, opt.FLAT] = opt.Folders(),
) -> None:
    """Run active learning and print a line for each round.

    Parameters
    ----------
    no_distill
        Plain active learning, without a teacher, from the same start and with the same steps.
    paper
        Start from the paper's protocol; other options override it.
    out
        Folder of the run; an interrupted run continues there.
    keep_students
        Keep the student of every round, not only of the last.
    """
    base = run_config(dataset, None if no_distill else teacher, paper, config)
    chosen = replace(base, train=replace(base.train, **opt.train_changes(train)))
    before = len(finished_rounds(out))
    result = chosen.run(out, **folders.roots(), device=device, keep_students=keep_students)
    print(result.to_frame()[COLUMNS].to_string(index=False, float_format="%.2f"))
    print(f"\nmean accuracy over the rounds (AULC): {result.aulc_pct:.1f} %")
    print(f"the run is in {out}", end="")
    print(f"; {before} of its rounds were finished before" if before else "")


def run_config(dataset: str, teacher: str | None, paper: bool, options: Any) -> RunConfig:
    """Return the paper's preset, or the defaults, changed by the options that were given."""
    changes = opt.given(options)
    if paper:
        vlm = {name: changes[name] for name in ("vlm", "pretrained") if name in changes}
        base = RunConfig.paper(dataset, teacher=teacher, **vlm)
    else:
        base = RunConfig(dataset=dataset, teacher=teacher)
    return replace(base, **changes)
