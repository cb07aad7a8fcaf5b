"""`activekd-lite card`."""

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from activekd_lite.analysis.card import TaskCard, task_card
from activekd_lite.cli import options as opt
from activekd_lite.cli.run import run_config
from activekd_lite.experiments.config import RunConfig

Config = opt.options_class(
    "Config",
    opt.option("student", str, opt.STUDENT, "the data set's own"),
    *opt.mirror(
        RunConfig,
        seed="Seed of the initial labels and the training.",
        shots="Labelled images per class.",
    ),
    *opt.POOL,
    *opt.VLM,
)


def command(
    *,
    dataset: Annotated[str, Parameter(help=opt.DATASET)] = "digits",
    teacher: Annotated[str, Parameter(help=opt.TEACHER, validator=opt.known_teacher)] = "zero-shot",
    device: Annotated[str, Parameter(help=opt.DEVICE)] = "auto",
    config: Annotated[Config, opt.FLAT] = Config(),
    train: Annotated[opt.Train, opt.FLAT] = opt.Train(),
    folders: Annotated[opt.Folders, opt.FLAT] = opt.Folders(),
) -> None:
    """Describe a task in numbers: teacher, first student, structure of errors, imbalance."""
    show(compute(dataset, teacher, device, config, opt.train_changes(train), folders))


def compute(
    dataset: str, teacher: str, device: str, config: Config, train: dict, folders: opt.Folders
) -> TaskCard:
    """Load what the options name, and compute its card. train: fields of TrainConfig."""
    chosen = replace(run_config(dataset, teacher, False, config), rounds=0)
    chosen = replace(chosen, train=replace(chosen.train, **train))
    inputs = chosen.load(**folders.roots(), device=device)
    names = ("student", "train", "shots", "seed")
    return task_card(
        inputs.data,
        inputs.teacher,
        features=inputs.features,
        device=device,
        **{name: getattr(chosen, name) for name in names},
    )


def show(card: TaskCard) -> None:
    for name, value in card.to_dict().items():
        shown = f"{value:.2f}" if isinstance(value, float) else value
        print(f"{name:24} {'unknown' if value is None else shown}")
