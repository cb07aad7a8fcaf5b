"""A grid of runs: the product of data sets, teachers, students, strategies and seeds."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

import yaml

from activekd_lite.datasets.loading import check_name
from activekd_lite.datasets.sources import short_name
from activekd_lite.datasets.spec import canonical_name
from activekd_lite.experiments.config import PAPER_SEEDS, RunConfig, paper_strategies
from activekd_lite.runs.preflight import check_selection_source, check_start
from activekd_lite.strategies import PAPER_STRATEGIES, get_strategy
from activekd_lite.strategies.contract import needs_teacher
from activekd_lite.teachers import ClapConfig
from activekd_lite.train_config import TrainConfig, with_length
from activekd_lite.utils.backbones import ON_FEATURES
from activekd_lite.utils.checks import choices, is_whole

OF_MODEL = ("vlm", "pretrained", "quick_gelu")
# The keys of an entry of `teachers`.
OF_TEACHER = ("name", "teacher", *OF_MODEL, "average", "templates", "views")
# Fields of `RunConfig` that all runs share.
SHARED = ("rounds", "query_size", "shots", "views", "pool_size", "pool_per_seed")
# The keys of a rule in `exclude`.
AXES = ("dataset", "teacher", "student", "strategy", "selection_source", "distill", "seed")
MOST_RUNS = 100_000
MOST_BYTES = 2**20  # of a grid file


@dataclass(frozen=True)
class Planned:
    """One run of a grid, and the name of its teacher in it ("none" without distillation)."""

    config: RunConfig
    teacher: str


@dataclass(frozen=True)
class Grid:
    """The runs to make: every combination of the lists that is not excluded.

    Parameters
    ----------
    datasets, students
        Names for `load_dataset` and `build_student`; a student of None is the data set's own.
    teachers
        Names as in `RunConfig.teacher`, or mappings with any keys of OF_TEACHER. Two
        that would share a folder need a "name" each.
    strategies
        None is the six of the paper.
    selection_sources
        For the runs with a teacher, see `run_active_learning`. Runs without one use "mixed".
    distill
        With the teacher, without it, or both. Runs without a teacher are made once, however many
        teachers there are.
    seeds
        None is 0, or with `paper` the paper's seeds.
    exclude
        Mappings from AXES to a value or a list of values; a run that matches every entry of one
        of them is left out.
    paper
        Start from `RunConfig.paper` and, by default, from its seeds and `paper_strategies`.
    views
        Per image, also for the runs without a teacher.
    train, clap
        A whole configuration, or a mapping of the fields that differ.

    The other fields are those of `RunConfig`; None keeps its default.

    Raises ValueError for a value of the wrong type, a repeated list entry, settings that no run can
    have, an empty grid, and more than MOST_RUNS runs.
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
        lists = {name: getattr(self, name) for name in LISTS}
        if self.strategies is None:
            lists["strategies"] = PAPER_STRATEGIES
        for name, value in (lists | {"exclude": self.exclude}).items():
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
                raise ValueError(f"{name} = {value!r}: a list is needed, such as [{value!r}]")
        _check_size({name: len(values) for name, values in lists.items()})
        for name, values in lists.items():
            _check_list(name, values)
        object.__setattr__(self, "datasets", tuple(map(canonical_name, self.datasets)))
        _check_settings({name: getattr(self, name) for name in (*SHARED, *OF_MODEL, "paper")}, "")
        for rule in self.exclude:
            _check_keys(rule, AXES, f"exclude {rule!r}")
        for entry in self.teachers:
            _check_teacher_entry(entry)
        self.runs()

    @classmethod
    def read(cls, path: str | os.PathLike, **changes: object) -> "Grid":
        """Read a grid from a YAML file whose keys are the fields; `changes` override them.

        Raises FileNotFoundError if there is no file, ValueError if it is not such a mapping, or has
        unknown keys or aliases.
        """
        found = _read_yaml(Path(path))
        if not isinstance(found, dict):
            raise ValueError(
                f"{path} contains a {type(found).__name__}; a mapping is needed, such as "
                "'strategies: [random, pcoreset]'"
            )
        _check_keys(found, [f.name for f in fields(cls)], str(path))
        return cls(**found | changes)

    def runs(self) -> dict[str, Planned]:
        """Return every run by its folder; runs that share data and teacher are neighbours.

        Runs that need a teacher (`pcoreset_teacher`, or a cold start with shots = 0) are made
        only with distillation.
        Raises ValueError for settings that no run can have, different runs that would share a
        folder, and an empty grid.
        """
        found = {}
        for folder, planned in self._all_runs():
            if found.setdefault(folder, planned) != planned:
                raise ValueError(
                    f"different runs would share the folder {folder}; give each teacher a 'name' "
                    "({name: raw, teacher: zero-shot, average: raw}), and data sets folders of "
                    "different names"
                )
        if not found:
            raise ValueError(
                "the grid has no runs: a list is empty, or every run is excluded or needs a teacher"
            )
        return found

    def _all_runs(self) -> Iterator[tuple[str, Planned]]:
        """Yield every possible run that is not excluded, with its folder."""
        outer = self.seeds, self.students, self.teachers, self.distill
        for dataset in self.datasets:
            axes = *outer, self._strategies_of(dataset), self.selection_sources
            for seed, student, entry, distill, strategy, source in product(*axes):
                teacher = {"teacher": entry} if isinstance(entry, str) else dict(entry)
                name = teacher.pop("name", None) or _default_name(teacher)
                seed = int(seed)  # numpy's integers cannot be written as JSON
                config = self._config(dataset, teacher, student, strategy, distill, seed, source)
                planned = Planned(config, name if distill else "none")
                if not _is_possible(config) or self._is_excluded(planned):
                    continue
                model = teacher.get("vlm") if student in ON_FEATURES and not distill else None
                names = {"teacher": name, "student": student, "features": model}
                names |= {"selection_source": config.selection_source}
                folder = run_folder("", dataset, strategy, distill, seed, **names)
                yield folder.as_posix(), planned

    def _strategies_of(self, dataset: str) -> Sequence[str]:
        if self.strategies is not None:
            return self.strategies
        return paper_strategies(dataset) if self.paper else PAPER_STRATEGIES

    def _config(
        self,
        dataset: str,
        teacher: Mapping,
        student: str | None,
        strategy: str,
        distill: bool,
        seed: int,
        source: str,
    ) -> RunConfig:
        """Return the settings of one run; source: its selection source."""
        check_selection_source(source, distilled=True)
        given = _drop_none({name: getattr(self, name) for name in OF_MODEL} | dict(teacher))
        if distill:
            given = {"teacher": "zero-shot"} | given
        else:  # of the teacher, only the model whose features the student is trained on matters
            kept = OF_MODEL if student in ON_FEATURES else ()
            given = {k: v for k, v in given.items() if k in kept} | {"teacher": None}
        base = RunConfig.paper(dataset, **given) if self.paper else RunConfig(dataset, **given)
        shared = _drop_none({name: getattr(self, name) for name in SHARED if name not in given})
        changes = shared | {"strategy": strategy, "seed": seed}
        if student:
            changes["student"] = student
        if distill:
            changes["selection_source"] = source
        train, clap = _with_changes(base.train, self.train), _with_changes(base.clap, self.clap)
        return replace(base, train=train, clap=clap, **changes)

    def _is_excluded(self, planned: Planned) -> bool:
        distill = planned.config.teacher is not None
        values = asdict(planned.config) | {"distill": distill, "teacher": planned.teacher}
        return any(
            all(values[axis] in _excluded(axis, named) for axis, named in rule.items())
            for rule in self.exclude
        )


def _excluded(axis: str, value: object) -> Sequence:
    """Return the values of an axis that a rule names, one or a list of them."""
    values = value if isinstance(value, list | tuple) else [value]
    named = axis == "dataset"
    return [canonical_name(v) if named and isinstance(v, str) else v for v in values]


def _drop_none(settings: Mapping) -> dict:
    """Return the settings that are not None, with lists as tuples, which can be hashed."""
    values = ((k, tuple(v) if isinstance(v, list) else v) for k, v in settings.items())
    return {k: v for k, v in values if v is not None}


def _is_possible(config: RunConfig) -> bool:
    """Return False for a run that needs a teacher and has none.

    Raises ValueError for shots = 0 with a strategy that starts from labelled images.
    """
    strategy = get_strategy(config.strategy)
    if config.shots == 0:
        check_start(strategy, shots=0, query_size=1, distilled=True)
    return config.teacher is not None or (not needs_teacher(strategy) and config.shots > 0)


def _with_changes(base: TrainConfig | ClapConfig, changes: object) -> TrainConfig | ClapConfig:
    """Return `changes` if it is a whole configuration, else `base` with these fields replaced."""
    if changes is None or isinstance(changes, type(base)):
        return changes or base
    kind = type(base).__name__
    _check_keys(changes, [f.name for f in fields(base)], kind)
    changes = with_length(changes) if isinstance(base, TrainConfig) else changes
    try:
        return replace(base, **changes)
    except (TypeError, OverflowError) as error:
        raise ValueError(
            f"{kind} {dict(changes)!r}: a value has the wrong type ({error})"
        ) from error


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, and without aliases.

    A few nested aliases can stand for more values than fit in memory.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            problem = "aliases (*name) are not allowed; write the value out"
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, problem, mark)
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
        raise ValueError(f"{path} is too large; a grid file may have {MOST_BYTES:,} bytes at most")
    try:
        return yaml.load(content, _Loader)
    except RecursionError:
        raise ValueError(
            f"{path} cannot be read as YAML: lists or mappings are nested too deeply"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an impossible date
        hint = "; in [ ] and { }, a name with ? needs quotes" if "got '?'" in str(error) else ""
        raise ValueError(f"{path} cannot be read as YAML: {error}{hint}") from error


def _check_size(lengths: Mapping[str, int]) -> None:
    if (count := math.prod(lengths.values())) > MOST_RUNS:
        shown = " x ".join(f"{length:,} {name}" for name, length in lengths.items() if length > 1)
        raise ValueError(
            f"the grid has {count:,} runs ({shown}); at most {MOST_RUNS:,} are allowed: split it "
            "into smaller grids"
        )


def _check_list(name: str, values: Sequence) -> None:
    """Raise ValueError for a value of the wrong type, or one that is repeated."""
    fits, needed = LISTS[name]
    seen = set()
    for value in values:
        if not fits(value):
            raise ValueError(f"{name}: {value!r}, but {needed} are needed")
        if name == "datasets":
            check_name(value)
            value = canonical_name(value)
        if repr(value) in seen:  # by repr, since a mapping cannot be in a set
            raise ValueError(f"{name}: {value!r} is repeated; give each value once")
        seen.add(repr(value))


def _check_settings(settings: Mapping[str, object], where: str) -> None:
    """Raise ValueError for types that `RunConfig` would refuse only after loading the images."""
    for name, value in settings.items():
        fits, needed = SETTINGS.get(name, WHOLE if name in SHARED else (None, ""))
        if value is not None and fits and not fits(value):
            raise ValueError(f"{where}{name} = {value!r}: {needed} is needed")


def _check_teacher_entry(entry: str | Mapping) -> None:
    settings = {} if isinstance(entry, str) else entry
    _check_keys(settings, OF_TEACHER, f"teacher {entry!r}")
    if "teacher" in settings and settings["teacher"] is None:
        raise ValueError(
            f"teacher {entry!r}: for runs without a teacher, write `distill: [false]` instead"
        )
    _check_settings(settings, f"teacher {entry!r}: ")


def _check_keys(given: Mapping, known: Sequence[str], where: str) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: a mapping is needed, with any of {', '.join(known)}")
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: unknown {name!r}{choices(name, known)}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_text, value))


def _is_name_or_none(value: object) -> bool:
    return value is None or _is_text(value)


def _is_name_or_mapping(value: object) -> bool:
    return isinstance(value, Mapping) or _is_text(value)


# A test for a value, and what to call the values that pass it.
NAMES = (_is_text, "names")
TEXT = (_is_text, "a text")
WHOLE = (is_whole, "a whole number")
YES_NO = (lambda value: isinstance(value, bool), "true or false")
SETTINGS = {
    **dict.fromkeys(("name", "teacher", "vlm", "pretrained", "average"), TEXT),
    **dict.fromkeys(("paper", "pool_per_seed", "quick_gelu"), YES_NO),
    "templates": (_is_list_of_texts, "a list of prompts, such as ['a photo of a {}.'],"),
}
# The lists whose product are the runs.
LISTS = {
    "datasets": NAMES,
    "teachers": (_is_name_or_mapping, "names or mappings"),
    "students": (_is_name_or_none, "names"),
    "strategies": NAMES,
    "selection_sources": NAMES,
    "distill": YES_NO,
    "seeds": (is_whole, "whole numbers"),
}


def _default_name(teacher: Mapping) -> str:
    """Return the name of a teacher that was given none: its model, if any, and its kind."""
    model = (teacher.get("vlm") or "").rpartition("/")[2]
    kind = teacher.get("teacher", "zero-shot")
    return "-".join(filter(None, (model, kind if kind != "zero-shot" or not model else "")))


def run_folder(
    out: str | os.PathLike,
    dataset: str,
    strategy: str,
    distill: bool,
    seed: int,
    *,
    teacher: str = "zero-shot",
    student: str | None = None,
    features: str | None = None,
    selection_source: str = "mixed",
) -> Path:
    """Return the folder of a run, never outside `out`: out/digits/pcoreset-activekd/seed0.

    The name of a teacher replaces "activekd" unless it is "zero-shot".
    features: the model whose features a student without a teacher is trained on.
    A selection source other than "mixed" comes last: pcoreset-activekd-select-kd.
    """
    label = ("activekd" if teacher == "zero-shot" else teacher) if distill else "plain"
    source = "" if selection_source == "mixed" else f"select-{selection_source}"
    parts = filter(None, (strategy, label, features, student, source))
    return Path(out, file_name(short_name(dataset)), file_name("-".join(parts)), f"seed{seed}")


def file_name(name: str) -> str:
    """Return `name` in a form that any system accepts as the name of a file or folder.

    Raises ValueError for names of nothing but dots and spaces, such as "..".
    """
    if not name.strip(". "):
        raise ValueError(
            f"{name!r} cannot be the name of a folder of runs; rename what it refers to, such as "
            "the data set's folder"
        )
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "-", name)
