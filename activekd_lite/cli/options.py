"""Options that several commands share. Most mirror a field of `RunConfig` or `TrainConfig`.

These are None unless given on the command line, so that the preset or the file keeps its value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token, convert
from cyclopts.validators import mutually_exclusive

from activekd_lite.datasets.embedded import EMBEDDED
from activekd_lite.datasets.loading import EXAMPLES
from activekd_lite.datasets.paper import LAYOUTS
from activekd_lite.datasets.sources import KINDS
from activekd_lite.datasets.spec import EXAMPLE
from activekd_lite.experiments.config import RunConfig
from activekd_lite.runs.preflight import SELECTION_SOURCES
from activekd_lite.strategies import STRATEGIES
from activekd_lite.teachers import CONTROLS, TEACHERS, parse_name
from activekd_lite.train_config import LENGTHS, TrainConfig, with_length
from activekd_lite.utils.backbones import ON_FEATURES, STUDENTS
from activekd_lite.utils.files import embedded_clips

ON_DISK = ", ".join([*LAYOUTS, *(kind.example for kind in KINDS.values())])
DATASET = f"{', '.join([*EMBEDDED, *LAYOUTS, *EXAMPLES.values()])}, or a task: '{EXAMPLE}'."
TEACHER = (
    f"{', '.join(TEACHERS)}; all but the first learn from the labels of each round. A control "
    f"changes a teacher's answers: {', '.join(f'zero-shot+{control}' for control in CONTROLS)}; "
    "zero-shot+noise=0.3 for another amount."
)
STUDENT = f"{', '.join([*STUDENTS, *ON_FEATURES])}, or any timm model."
STRATEGY = f"{', '.join(STRATEGIES)}, or one of scikit-activeml, such as skactiveml:TypiClust."
SOURCE = "Probabilities to select by: both heads mixed, one head, or the teacher's."
DEVICE = "auto, cpu, cuda, cuda:1, mps."


def known_teacher(kind: Any, value: Any) -> None:
    """Raise ValueError for an unknown name of a teacher, or in a list of them."""
    for name in [value] if isinstance(value, str) else value or ():
        parse_name(name)


SelectionSource = Literal[*SELECTION_SOURCES]
Option = tuple[str, Any, Any]  # name, annotated type and default of a dataclass field

FLAT = Parameter(name="*")  # a dataclass whose fields are options of the command
ROUND_LENGTH = Group("Length of a round (choose one)", validator=mutually_exclusive)


def strict(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert the last occurrence of an option. Unlike cyclopts, do not round 1.5 to an integer."""
    start = max(i for i, token in enumerate(tokens) if token.index == 0)
    return convert(kind, tokens[start:], lambda scalar, text: scalar(text))


def option(field: str, kind: Any, help: str, default: Any = None, **settings: Any) -> Option:
    """Describe an option that is None unless given; `default` is shown in its help.

    A list takes one or more values.
    """
    if default is not None:
        settings["show_default"] = str(default)
    if get_origin(kind) in (list, tuple):
        settings["consume_multiple"] = (1, None)
    if kind is not bool:
        settings["converter"] = strict
    return field, Annotated[kind, Parameter(help=help, **settings)], None


def mirror(config: type, **help: str) -> list[Option]:
    """Describe an option for each of these fields of `config`: its type, default and help."""
    kinds, defaults = get_type_hints(config), {f.name: f.default for f in fields(config)}
    options = []
    for name, text in help.items():
        kind, default = _without_none(kinds[name]), defaults[name]
        settings = {"group": ROUND_LENGTH} if name in LENGTHS else {}
        options.append(option(name, kind, text, None if kind is bool else default, **settings))
    return options


def _without_none(kind: Any) -> Any:
    if not isinstance(kind, UnionType):
        return kind
    return next(member for member in get_args(kind) if member is not NoneType)


def options_class(name: str, *options: Option) -> type:
    """Make a frozen dataclass of options."""
    made = make_dataclass(name, options, frozen=True, kw_only=True)
    made.__module__ = __name__  # otherwise "types", whose classes cyclopts does not look into
    return made


def given(options: Any) -> dict[str, Any]:
    """Return the options that were given on the command line."""
    return {name: value for name, value in vars(options).items() if value is not None}


def train_changes(options: Any) -> dict[str, Any]:
    """Return the fields of `TrainConfig` that were given on the command line."""
    changes = given(options)
    weights = changes.pop("student_weights", None)
    if weights is not None:
        changes["pretrained"] = False if weights == "random" else weights
    return with_length(changes)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where commands find data sets and keep caches."""

    cache: Annotated[str, Parameter(help="Folder of teacher features and generated images.")] = (
        ".cache"
    )
    root: Annotated[str, Parameter(help="Folder with one folder per data set.")] = "data"

    def roots(self) -> dict[str, str]:
        return {"cache_root": self.cache, "data_root": self.root}


VLM = [
    *mirror(
        RunConfig,
        vlm=f"{', '.join(embedded_clips())} (embedded), or an open_clip model.",
        pretrained="open_clip tag or weights file of --vlm.",
    ),
    option(
        "quick_gelu",
        bool,
        "Whether that file was trained with QuickGELU; known for tags.",
        negative="--no-quick-gelu",
    ),
    option(
        "views",
        int,
        "Cached views of each image.",
        "1; with --paper 10; without a teacher a new crop in each step",
    ),
]
POOL = mirror(
    RunConfig,
    pool_size="Use a random part of the pool, of this size.",
    pool_per_seed="Draw that part anew for each seed.",
)
LABELS = [
    *mirror(RunConfig, rounds="Number of queries; one more student is trained."),
    option("query_size", int, "Labels per round.", "the number of classes"),
    *mirror(RunConfig, shots="Labelled images per class at the start; 0 is a cold start."),
]
Train = options_class(
    "Train",
    option(
        "student_weights",
        str,
        "Weights file of the student's backbone, or 'random'.",
        "its pre-trained weights",
    ),
    *mirror(
        TrainConfig,
        steps="Training steps per round.",
        passes="Passes over the labelled images per round.",
        pool_passes="Passes over the unlabelled images per round.",
        last_round_pool_passes="--pool-passes of the last round, if different.",
        batch_size="Labelled images per step.",
        lr="Largest learning rate of AdamW.",
        heads="dual: a head for labels and one for the teacher; single: one for both.",
        distill_on="Images whose teacher's answers are learned: both, labeled, unlabeled.",
        kd_loss_weight="Of the distillation loss; cross-entropy has the rest of 1.",
        temperature="Of the distillation loss.",
        standardize_logits="Compare standardized logits of student and teacher.",
        kd_weight="Of the teacher's head in the student's probabilities.",
        calibrate="Temper the test probabilities by a fit on the labelled images.",
        precision="Of the student: float32, bfloat16, float16; auto is bfloat16 on CUDA.",
        compile="Compile the student with torch.compile.",
    ),
)
