"""A grid of runs: the product of data sets, teachers, students, strategies, distillation and seeds, less what is excluded."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

import yaml

from activekd_lite.loop import check_selection_source
from activekd_lite.protocol import RunConfig
from activekd_lite.sources import short_name
from activekd_lite.strategies import COLD_START, PAPER_STRATEGIES, STRATEGIES
from activekd_lite.students import ON_FEATURES
from activekd_lite.teacher import ClapConfig
from activekd_lite.training import TrainConfig

OF_TEACHER = ("name", "teacher", "vlm", "pretrained", "average", "templates", "views")  # what an entry of `teachers` may say
SHARED = ("rounds", "query_size", "shots", "views", "pool_size")  # of all runs, as in `RunConfig`
AXES = ("dataset", "teacher", "student", "strategy", "selection_source", "distill", "seed")


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
    teachers. exclude: mappings of AXES to a value or a list of them; a run that has them all is left out. paper: start from
    `RunConfig.paper`. train, clap: or mappings of what differs. views: of each image, of runs without a teacher, too.
    selection_sources: of the runs with a teacher, see `run_active_learning`; those without one select by "mixed".
    """

    datasets: Sequence[str] = ("digits",)
    teachers: Sequence[str | Mapping] = ("zero-shot",)
    students: Sequence[str | None] = (None,)
    strategies: Sequence[str] = PAPER_STRATEGIES
    selection_sources: Sequence[str] = ("mixed",)
    distill: Sequence[bool] = (True, False)
    seeds: Sequence[int] = (0,)
    exclude: Sequence[Mapping] = ()
    paper: bool = False
    rounds: int | None = None
    query_size: int | None = None
    shots: int | None = None
    views: int | None = None
    pool_size: int | None = None
    vlm: str | None = None
    pretrained: str | None = None
    train: TrainConfig | Mapping | None = None
    clap: ClapConfig | Mapping | None = None

    def __post_init__(self):
        for name in ("datasets", "teachers", "students", "strategies", "selection_sources", "distill", "seeds", "exclude"):
            value = getattr(self, name)
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
                raise ValueError(f"{name} = {value!r}: a list is needed, such as [{value!r}]")
        for rule in self.exclude:
            _known(rule, AXES, f"exclude {dict(rule)}")
        for entry in self.teachers:
            _known({} if isinstance(entry, str) else entry, OF_TEACHER, f"teacher {entry!r}")
        self.runs()

    @classmethod
    def read(cls, path: str | os.PathLike, **changes: object) -> "Grid":
        """The grid in a YAML file, whose keys are the fields; changes go before what it says.

        Raises FileNotFoundError for no file, ValueError for one that is not such a mapping or has unknown keys.
        """
        try:
            found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no grid file {path}; it is YAML, such as 'strategies: [random, pcoreset]'") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read as YAML: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path} holds {type(found).__name__}, not a mapping such as 'strategies: [random, pcoreset]'")
        _known(found, [f.name for f in fields(cls)], str(path))
        return cls(**found | changes)

    def runs(self) -> dict[str, Planned]:
        """Every run by its folder, those next to each other that share data and teacher.

        What only a teacher makes possible, `pcoreset_teacher` and a cold start (shots = 0), is run with distillation alone.
        Raises ValueError for what no run can be made of, and for different runs that would share a folder.
        """
        found = {}
        axes = (
            self.datasets, self.seeds, self.students, self.teachers, self.distill, self.strategies, self.selection_sources,
        )  # fmt: skip
        for dataset, seed, student, entry, distill, strategy, source in product(*axes):
            teacher = {"teacher": entry} if isinstance(entry, str) else dict(entry)
            name = teacher.pop("name", None) or _name(teacher)
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
            raise ValueError("the grid has no runs: a list in it is empty, or all of it is excluded or needs a teacher")
        return found

    def _run(
        self, dataset: str, teacher: Mapping, student: str | None, strategy: str, distill: bool, seed: int, source: str
    ) -> RunConfig:
        given = {"vlm": self.vlm, "pretrained": self.pretrained} | dict(teacher)
        given = {k: v for k, v in given.items() if v is not None} | {"teacher": teacher.get("teacher", "zero-shot")}
        if not distill:  # the same run whatever the teacher, unless it learns from the model's features
            given = {"teacher": None} | (
                {k: given[k] for k in ("vlm", "pretrained") if k in given} if student in ON_FEATURES else {}
            )
        base = RunConfig.paper(dataset, **given) if self.paper else RunConfig(dataset, **given)
        shared = {k: getattr(self, k) for k in SHARED if getattr(self, k) is not None and k not in given}
        train, clap = _changed(base.train, self.train), _changed(base.clap, self.clap)
        named = {"strategy": strategy, "seed": seed} | ({"student": student} if student else {})
        check_selection_source(source, distilled=True)
        named |= {"selection_source": source} if distill else {}
        return replace(base, train=train, clap=clap, **shared, **named)

    def _excluded(self, planned: Planned) -> bool:
        of = asdict(planned.config) | {"distill": planned.config.teacher is not None, "teacher": planned.teacher}
        return any(
            all(of[axis] in (values if isinstance(values, list | tuple) else [values]) for axis, values in rule.items())
            for rule in self.exclude
        )


def _possible(config: RunConfig) -> bool:
    if config.shots == 0 and config.strategy in STRATEGIES and config.strategy not in COLD_START:
        raise ValueError(f"shots = 0: {config.strategy} starts from labelled images; these do not: {', '.join(COLD_START)}")
    return config.teacher is not None or (config.strategy != "pcoreset_teacher" and config.shots > 0)


def _changed(base, changes: object):
    if changes is None or isinstance(changes, type(base)):
        return changes or base
    _known(changes, [f.name for f in fields(base)], type(base).__name__)
    if "steps" in changes:
        changes = {"passes": None} | dict(changes)
    return replace(base, **changes)


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
    model = teacher.get("vlm", "").rpartition("/")[2]
    kind = teacher.get("teacher", "zero-shot")
    return "-".join(filter(None, (model, kind if kind != "zero-shot" or not model else "")))


def run_folder(
    out: str | os.PathLike, dataset: str, strategy: str, distill: bool, seed: int, *, teacher: str = "zero-shot",
    student: str | None = None, features: str | None = None, selection_source: str = "mixed",
) -> Path:  # fmt: skip
    """Where a run of a grid lies: out/digits/pcoreset-activekd/seed0; another teacher, the student, and the model whose
    features a student without a teacher learns from, are named where they are given, a selection_source other than "mixed" is
    the last part: pcoreset-activekd-select-kd."""
    label = ("activekd" if teacher == "zero-shot" else teacher) if distill else "plain"
    source = "" if selection_source == "mixed" else f"select-{selection_source}"
    parts = "-".join(filter(None, (strategy, label, features, student, source)))
    return Path(out) / short_name(dataset) / re.sub(r"[:/\\]", "-", parts) / f"seed{seed}"
