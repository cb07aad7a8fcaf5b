"""A grid of runs: the product of data sets, teachers, students, strategies, distillation and seeds, less what is excluded."""

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, product
from pathlib import Path

import yaml

from activekd_lite.datasets.loading import check_name
from activekd_lite.datasets.sources import short_name
from activekd_lite.experiments.config import PAPER_SEEDS, RunConfig, paper_strategies
from activekd_lite.few_shot import ClapConfig
from activekd_lite.runs.preflight import check_selection_source, check_start
from activekd_lite.strategies import PAPER_STRATEGIES, get_strategy
from activekd_lite.strategies.contract import needs_teacher
from activekd_lite.train_config import TrainConfig, with_length
from activekd_lite.utils.backbones import ON_FEATURES
from activekd_lite.utils.checks import is_whole

# What an entry of `teachers` may say.
OF_TEACHER = ("name", "teacher", "vlm", "pretrained", "quick_gelu", "average", "templates", "views")
OF_MODEL = ("vlm", "pretrained", "quick_gelu")
SHARED = (
    "rounds",
    "query_size",
    "shots",
    "views",
    "pool_size",
    "pool_per_seed",
)  # of all runs, as in `RunConfig`
AXES = ("dataset", "teacher", "student", "strategy", "selection_source", "distill", "seed")
MOST_RUNS = 100_000
MOST_BYTES = 2**20  # of a grid file


@dataclass(frozen=True)
class Planned:
    """A run of a grid: its settings by names, and what its teacher is called there ("none" without distillation)."""

    config: RunConfig
    teacher: str


@dataclass(frozen=True)
class Grid:
    """What to run; each run is a `protocol.RunConfig`, whose values hold for what is None here.

    teachers: "zero-shot", "clap", or a mapping with any of OF_TEACHER ("teacher" is its kind); two that would share a folder
    need a "name" each. distill: with the teacher, without it, or both; what is run without one is run once, whatever the
    teachers. strategies None: the six of the paper. seeds None: 0. selection_sources: of the runs with a teacher, see
    `run_active_learning`; those without one select by "mixed". exclude: mappings of AXES to a value or a list of them; a run
    that has them all is left out. paper: start from `RunConfig.paper`, and by default from its seeds and from strategies as its
    code has them (`protocol.paper_strategies`). train, clap: or mappings of what differs. views: of each image, of runs without
    a teacher, too.

    Raises ValueError for a list that names something twice, a value of the wrong type, or more than MOST_RUNS runs.
    """

    datasets: Sequence[str] = ("digits",)
    teachers: Sequence[str | Mapping] = ("zero-shot",)
    students: Sequence[str | None] = (None,)
    strategies: Sequence[str] | None = None
    selection_sources: Sequence[str] = ("mixed",)
    distill: Sequence[bool] = (True, False)
    seeds: Sequence[int] | None = None
    exclude: Sequence[Mapping] = ()
    paper: bool = False
    rounds: int | None = None
    query_size: int | None = None
    shots: int | None = None
    views: int | None = None
    pool_size: int | None = None
    pool_per_seed: bool | None = None
    vlm: str | None = None
    pretrained: str | None = None
    quick_gelu: bool | None = None
    train: TrainConfig | Mapping | None = None
    clap: ClapConfig | Mapping | None = None

    def __post_init__(self):
        if self.seeds is None:
            object.__setattr__(self, "seeds", PAPER_SEEDS if self.paper else (0,))
        given = [name for name in TYPES if name != "strategies" or self.strategies is not None]
        for name in (*given, "exclude"):
            value = getattr(self, name)
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
                raise ValueError(f"{name} = {value!r}: a list is needed, such as [{value!r}]")
        _check_size(
            {
                name: len(getattr(self, name)) if name in given else len(PAPER_STRATEGIES)
                for name in TYPES
            }
        )
        for name in given:
            _check_list(name, getattr(self, name))
        _check_settings({name: getattr(self, name) for name in (*SHARED, *OF_MODEL, "paper")}, "")
        for rule in self.exclude:
            _known(rule, AXES, f"exclude {rule!r}")
        for entry in self.teachers:
            said = {} if isinstance(entry, str) else entry
            _known(said, OF_TEACHER, f"teacher {entry!r}")
            if "teacher" in said and said["teacher"] is None:
                raise ValueError(
                    f"teacher {entry!r}: runs without a teacher are those of `distill: [false]`"
                )
            _check_settings(said, f"teacher {entry!r}: ")
        self.runs()

    @classmethod
    def read(cls, path: str | os.PathLike, **changes: object) -> "Grid":
        """The grid in a YAML file, whose keys are the fields; `changes` override it.

        Raises FileNotFoundError for no file, ValueError for one that is not such a mapping, has unknown keys or aliases.
        """
        found = _read_yaml(Path(path))
        if not isinstance(found, dict):
            raise ValueError(
                f"{path} holds {type(found).__name__}, not a mapping such as 'strategies: [random, pcoreset]'"
            )
        _known(found, [f.name for f in fields(cls)], str(path))
        return cls(**found | changes)

    def runs(self) -> dict[str, Planned]:
        """Every run by its folder, those next to each other that share data and teacher.

        What only a teacher makes possible, `pcoreset_teacher` and a cold start (shots = 0), is run with distillation alone.
        Raises ValueError for what no run can be made of, and for different runs that would share a folder.
        """
        found = {}
        others = (self.seeds, self.students, self.teachers, self.distill)
        every = (
            product([name], *others, self._strategies_of(name), self.selection_sources)
            for name in self.datasets
        )
        for dataset, seed, student, entry, distill, strategy, source in chain.from_iterable(every):
            teacher = {"teacher": entry} if isinstance(entry, str) else dict(entry)
            name = teacher.pop("name", None) or _name(teacher)
            seed = int(seed)  # numpy's cannot be written as JSON
            config = self._run(dataset, teacher, student, strategy, distill, seed, source)
            planned = Planned(config, name if distill else "none")
            if not _possible(config) or self._excluded(planned):
                continue
            model = teacher.get("vlm") if student in ON_FEATURES and not distill else None
            folder = run_folder(
                "", dataset, strategy, distill, seed, teacher=name, student=student, features=model,
                selection_source=config.selection_source,
            ).as_posix()  # fmt: skip
            if found.setdefault(folder, planned) != planned:
                raise ValueError(
                    f"different runs would share the folder {folder}; give teachers a 'name' each "
                    "({name: raw, teacher: zero-shot, average: raw}), and data sets folders of different names"
                )
        if not found:
            raise ValueError(
                "the grid has no runs: a list in it is empty, or all of it is excluded or needs a teacher"
            )
        return found

    def _strategies_of(self, dataset: str) -> Sequence[str]:
        if self.strategies is not None:
            return self.strategies
        return paper_strategies(dataset) if self.paper else PAPER_STRATEGIES

    def _run(
        self,
        dataset: str,
        teacher: Mapping,
        student: str | None,
        strategy: str,
        distill: bool,
        seed: int,
        source: str,
    ) -> RunConfig:
        given = {k: getattr(self, k) for k in OF_MODEL} | dict(teacher)
        given = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None
        }  # hashable, as a key
        given |= {"teacher": teacher.get("teacher", "zero-shot")}
        if (
            not distill
        ):  # the same run whatever the teacher, unless it learns from the model's features
            given = {"teacher": None} | (
                {k: given[k] for k in OF_MODEL if k in given} if student in ON_FEATURES else {}
            )
        base = RunConfig.paper(dataset, **given) if self.paper else RunConfig(dataset, **given)
        shared = {
            k: getattr(self, k) for k in SHARED if getattr(self, k) is not None and k not in given
        }
        train, clap = _changed(base.train, self.train), _changed(base.clap, self.clap)
        named = {"strategy": strategy, "seed": seed} | ({"student": student} if student else {})
        check_selection_source(source, distilled=True)
        named |= {"selection_source": source} if distill else {}
        return replace(base, train=train, clap=clap, **shared, **named)

    def _excluded(self, planned: Planned) -> bool:
        of = asdict(planned.config) | {
            "distill": planned.config.teacher is not None,
            "teacher": planned.teacher,
        }
        return any(
            all(
                of[axis] in (values if isinstance(values, list | tuple) else [values])
                for axis, values in rule.items()
            )
            for rule in self.exclude
        )


def _possible(config: RunConfig) -> bool:
    """Return False for a run that needs a teacher and has none. Raises ValueError for shots = 0 where labels are needed."""
    strategy = get_strategy(config.strategy)
    if config.shots == 0:
        check_start(strategy, shots=0, query_size=1, distilled=True)
    return config.teacher is not None or (not needs_teacher(strategy) and config.shots > 0)


def _changed(base, changes: object):
    if changes is None or isinstance(changes, type(base)):
        return changes or base
    _known(changes, [f.name for f in fields(base)], type(base).__name__)
    changes = with_length(changes) if isinstance(base, TrainConfig) else changes
    try:
        return replace(base, **changes)
    except (TypeError, OverflowError) as error:
        raise ValueError(
            f"{type(base).__name__} {dict(changes)!r}: a value has the wrong type ({error})"
        ) from error


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few nested ones stand for more values than any memory holds. And 1e-3 is a number."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not allowed; write the value out", mark
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), [*"+-0123456789"]
)


def _read_yaml(path: Path) -> object:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no grid file {path}; it is YAML, such as 'strategies: [random, pcoreset]'"
        ) from error
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{path} is larger than {MOST_BYTES:,} bytes, the most that a grid file may have"
        )
    try:
        return yaml.load(content, _Loader)
    except RecursionError:
        raise ValueError(
            f"{path} cannot be read as YAML: lists or mappings are nested too deeply"
        ) from None
    except (
        yaml.YAMLError,
        ValueError,
    ) as error:  # ValueError: bytes that are no UTF-8, a date that does not exist
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error


def _check_size(lengths: Mapping[str, int]) -> None:
    if (count := math.prod(lengths.values())) > MOST_RUNS:
        shown = " x ".join(f"{length:,} {name}" for name, length in lengths.items() if length > 1)
        raise ValueError(
            f"the grid has {count:,} runs ({shown}); {MOST_RUNS:,} are the most: make several smaller grids"
        )


def _check_list(name: str, values: Sequence) -> None:
    """Every value of the type that its axis needs, and none twice."""
    fits, needed = TYPES[name]
    for value in values:
        if not fits(value):
            raise ValueError(f"{name}: {value!r}, but {needed} are needed")
        if name == "datasets":
            check_name(value)
    seen = set()
    for value in map(repr, values):  # a mapping cannot be in a set
        if value in seen:
            raise ValueError(f"{name}: {value} is there twice; give each once")
        seen.add(value)


def _check_settings(settings: Mapping[str, object], where: str) -> None:
    """Of the type that `RunConfig` needs: what is wrong there would be noticed only after the images were loaded."""
    for name, value in settings.items():
        fits, needed = SETTINGS.get(
            name, (is_whole, "a whole number") if name in SHARED else (lambda _: True, "")
        )
        if value is not None and not fits(value):
            raise ValueError(f"{where}{name} = {value!r}: {needed} is needed")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_text, value))


TEXT, YES_NO = (_is_text, "a text"), (lambda value: isinstance(value, bool), "true or false")
SETTINGS = {
    **dict.fromkeys(("name", "teacher", "vlm", "pretrained", "average"), TEXT),
    **dict.fromkeys(("paper", "pool_per_seed", "quick_gelu"), YES_NO),
    "templates": (_are_texts, "a list of prompts, such as ['a photo of a {}.'],"),
}
TYPES = {  # of the values of each list; the product of these lists are the runs
    "datasets": (_is_text, "names"),
    "teachers": (lambda value: _is_text(value) or isinstance(value, Mapping), "names or mappings"),
    "students": (lambda value: value is None or _is_text(value), "names"),
    "strategies": (_is_text, "names"),
    "selection_sources": (_is_text, "names"),
    "distill": YES_NO,
    "seeds": (is_whole, "whole numbers"),
}


def _known(given: Mapping, known: Sequence[str], where: str) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: a mapping is needed, with any of {', '.join(known)}")
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ValueError(
                f"{where}: unknown {name!r}{f', did you mean {near[0]}?' if near else ';'} known are {', '.join(known)}"
            )


def _name(teacher: Mapping) -> str:
    """What a teacher without a name is called: its model, if it says one, and its kind."""
    model = (teacher.get("vlm") or "").rpartition("/")[2]
    kind = teacher.get("teacher", "zero-shot")
    return "-".join(filter(None, (model, kind if kind != "zero-shot" or not model else "")))


def run_folder(
    out: str | os.PathLike, dataset: str, strategy: str, distill: bool, seed: int, *, teacher: str = "zero-shot",
    student: str | None = None, features: str | None = None, selection_source: str = "mixed",
) -> Path:  # fmt: skip
    """Where a run of a grid lies, never outside `out`: out/digits/pcoreset-activekd/seed0.

    Another teacher, the student, and the model whose features a student without a teacher learns from, are named where given;
    a selection_source other than "mixed" is the last part: pcoreset-activekd-select-kd.
    """
    label = ("activekd" if teacher == "zero-shot" else teacher) if distill else "plain"
    source = "" if selection_source == "mixed" else f"select-{selection_source}"
    parts = filter(None, (strategy, label, features, student, source))
    return Path(out, file_name(short_name(dataset)), file_name("-".join(parts)), f"seed{seed}")


def file_name(name: str) -> str:
    """`name` as that of one file or folder on any system. Raises ValueError for one that names none, such as ".."."""
    if not name.strip(". "):
        raise ValueError(
            f"{name!r} cannot be the name of a folder of runs; give what it names (a data set's folder) another name"
        )
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "-", name)
