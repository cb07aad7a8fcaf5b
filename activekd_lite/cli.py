"""The command line: the names of the package, one subcommand for each job."""

import argparse
import ast
import datetime
import itertools
import math
import sys
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from activekd_lite import cache
from activekd_lite.analysis import statistics
from activekd_lite.course import batches, handouts, notebooks
from activekd_lite.datasets.embedded import EMBEDDED
from activekd_lite.datasets.loading import load_dataset
from activekd_lite.datasets.paper import LAYOUTS, missing_parts
from activekd_lite.datasets.sources import find
from activekd_lite.doctor import environment
from activekd_lite.experiments import cluster, sweep
from activekd_lite.experiments.config import TEACHERS, RunConfig, zero_shot_accuracy_pct
from activekd_lite.plots import report
from activekd_lite.preflight import SELECTION_SOURCES
from activekd_lite.runs import finished_rounds
from activekd_lite.strategies import STRATEGIES
from activekd_lite.training import TrainConfig, with_length
from activekd_lite.utils.backbones import ON_FEATURES, STUDENTS
from activekd_lite.utils.files import parse_json
from activekd_lite.utils.images import damaged
from activekd_lite.utils.stopping import RESUME_HINT
from activekd_lite.vlm import load_vlm


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"activekd-lite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"activekd-lite: stopped; {RESUME_HINT}", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> None:
    """One run of active learning."""
    config = _run_config(args)
    before = len(finished_rounds(args.out))
    result = config.run(
        args.out,
        cache_root=args.cache,
        data_root=args.root,
        device=args.device,
        keep_students=args.keep_students,
    )
    columns = ["round", "labeled_count", "accuracy_pct", "calibration_error_pct", "covering_radius"]
    print(result.to_frame()[columns].to_string(index=False, float_format="%.2f"))
    print(f"\nmean accuracy over the rounds (AULC): {result.aulc_pct:.1f} %")
    print(
        f"the run is in {args.out}"
        + (f"; {before} of its rounds were there already" if before else "")
    )


def _run_config(args: argparse.Namespace) -> RunConfig:
    """The preset, or the defaults, with what was said on the command line in its place."""
    given = {k: v for k, v in vars(args).items() if v is not None}
    vlm = {k: given[k] for k in ("vlm", "pretrained") if k in given}
    base = (
        RunConfig.paper(args.dataset, teacher=_teacher(args), **vlm)
        if args.paper
        else RunConfig(teacher=_teacher(args))
    )
    known = {f.name for f in fields(RunConfig)} - {"teacher", "train", "clap"}
    return replace(
        base,
        train=_train_config(args, base.train),
        **{k: v for k, v in given.items() if k in known},
    )


def _teacher(args: argparse.Namespace) -> str | None:
    return args.teacher if args.distill else None


def run_sweep(args: argparse.Namespace) -> int:
    """A grid of runs, from a YAML file or from what is said here: data sets, teachers, students, strategies, seeds."""
    grid = _grid(args)
    if args.dry_run:
        return _dry_run(grid, args)
    how = {"workers": args.workers, "scheduler": args.scheduler, "memory_limit": args.memory_limit}
    folders = {"cache_root": args.cache, "data_root": args.root}
    if args.notebook:
        done = batches.run(grid, args.notebook, args.out, **folders, device=args.device, **how)
        failed = {name: why for name, why in done.items() if why}
        for name, why in failed.items():
            print(f"FAILED {name}: {why}")
        print(
            f"{len(done) - len(failed)} of {len(done)} notebooks ran through; open {Path(args.out, 'index.html')}"
        )
        return 1 if failed else 0
    try:
        results = sweep.run(grid, args.out, **folders, device=args.device, **how)
    except RuntimeError as error:
        print(f"activekd-lite: {error}", file=sys.stderr)
        return _tell_failures(Path(args.out)) or 1
    return _report(results, Path(args.out))


def _grid(args: argparse.Namespace) -> sweep.Grid:
    """The file's, or the default one, with what was said on the command line in its place."""
    given = {
        k: v
        for k, v in vars(args).items()
        if v is not None and k in {f.name for f in fields(sweep.Grid)}
    }
    if train := _train_changes(args):
        given["train"] = train
    return sweep.Grid.read(args.grid, **given) if args.grid else sweep.Grid(**given)


def _dry_run(grid: sweep.Grid, args: argparse.Namespace) -> int:
    count = cluster.worker_count(args.workers)
    plan, seconds = sweep.estimate(grid, args.out, count)
    print(plan.to_string(index=False))
    left = plan[plan["done"] < plan["trainings"]]
    trainings = (left["trainings"] - left["done"]).sum()
    time = (
        f"about {datetime.timedelta(seconds=round(seconds))}"
        if math.isfinite(seconds)
        else "no training is done yet to go by"
    )
    print(
        f"\n{len(plan) - len(left)} of {len(plan)} runs are finished; {trainings} trainings are left"
    )
    if len(left):
        print(f"time left with {count} workers: {time}")
    return 0


def run_report(args: argparse.Namespace) -> int:
    """What finished runs say, as one page that opens without a network: curves, gains, wins and losses, ranks."""
    return _report(sweep.load(args.runs), Path(args.runs), args.out)


def _report(results: pd.DataFrame, folder: Path, page: str | None = None) -> int:
    """Print the summary, and write the page. Returns 1 where a run has failed."""
    failed = {run: why.splitlines()[0] for run, why in sweep.failures(folder).items()}
    page = page or (folder if folder.is_dir() else folder.parent) / "report.html"
    report.write(results, page, teacher_accuracy_pct=sweep.teachers(folder), failed=failed)
    print("\nmean test accuracy over the rounds (AULC, %), ± 95 % interval over the seeds\n")
    print(statistics.summary(results).to_string(index=False))
    print(f"\n{results['run'].nunique()} runs; figures and tests of what they say are in {page}")
    return _tell_failures(folder)


def _tell_failures(folder: Path) -> int:
    """A line for each run that has failed. Returns 1 where there is one."""
    failed = sweep.failures(folder)
    for run, why in failed.items():
        print(f"FAILED {run}: {why.splitlines()[0]}")
    return 1 if failed else 0


def run_cache(args: argparse.Namespace) -> int:
    """Encode a data set's pool with the teacher (or open what is there); list caches, compare checksums, or delete old ones."""
    if args.job == "info":
        table = cache.info(args.cache)
        print(
            table.to_string(index=False, float_format="%.1f", na_rep="")
            if len(table)
            else f"no teacher cache in {args.cache}"
        )
        return 0
    if args.job == "verify":
        wrong = cache.verify(args.cache)
        for folder, reason in wrong.items():
            print(f"{folder}: {reason or 'checksums right'}")
        return 1 if any(wrong.values()) else 0
    if args.job == "prune":
        going = cache.prune(args.cache, args.unused_days, delete=args.yes)
        for folder, reason in going.items():
            print(f"{folder}: {reason}{', deleted' if args.yes else ''}")
        print(f"{len(going)} caches " + ("deleted" if args.yes else "could go; --yes deletes them"))
        return 0
    config = replace(_run_config(args), rounds=0)  # no query is asked for: any pool will do
    built = config.load(
        cache_root=args.cache, data_root=args.root, device=args.device
    ).teacher.cache
    views, size, dim = built.features.shape
    mib = built.features.nbytes / 2**20
    print(
        f"{built.path}: {views} views x {size} images x {dim} numbers, {mib:.1f} MiB, checksums right"
    )
    return 0


def data(args: argparse.Namespace) -> int:
    """Is a data set whole? What is missing, and how many images there are."""
    if args.dataset in LAYOUTS and (missing := missing_parts(args.dataset, args.root)):
        print(f"{args.dataset} is not whole; data/README.md says how to get it. Missing:")
        print("\n".join(f"  {path}" for path in missing))
        return 1
    source = find(args.dataset, args.root)
    gone = [path for path in source.pool[0] + source.test[0] if not path.is_file()]
    unknown = sum(label < 0 for label in source.pool[1])
    print(
        f"{source.name}: {len(source.classnames)} classes, {len(source.pool[0])} images in the pool"
        + (f" ({unknown} without a label)" if unknown else "")
        + f", {len(source.test[0])} for the test"
    )
    if gone:
        print(
            f"{len(gone)} of the images are missing:\n"
            + "\n".join(f"  {path}" for path in gone[:20])
        )
        print("  ..." if len(gone) > 20 else "", end="")
    return 1 if gone else 0


def _check_images(args: argparse.Namespace) -> int:
    """Decode every image of --data and list those that cannot be read."""
    source = find(args.data, args.root)
    bad = damaged(source.pool[0] + source.test[0])
    for path, reason in bad.items():
        print(f"{path}: {reason}")
    print(
        f"{len(bad)} of {len(source.pool[0]) + len(source.test[0])} images of {source.name} cannot be read"
    )
    return 1 if bad else 0


def run_notebooks(args: argparse.Namespace) -> int:
    """Run notebooks and make pages of them that open without a network, or copy them for a course."""
    copying = args.student or args.solutions
    if sum(map(bool, (args.parameters, args.refresh, copying))) > 1:
        raise ValueError(
            "-p, --refresh and --student or --solutions are for different jobs; give one of them"
        )
    if copying:
        copies = handouts.hand_out(
            args.names, student=args.student, solutions=args.solutions, folder=args.folder
        )
        for folder, of in itertools.groupby(copies, key=lambda path: path.parent):
            print(f"{len([*of])} notebooks are in {folder}; its README.md says how to open them")
        return 0
    names = args.names or (
        []
        if args.refresh
        else [path.stem for path in notebooks.find(folder=args.folder) if path.stem < "06"]
    )
    if args.refresh:
        outcomes = notebooks.refresh(names, args.folder)
    else:
        outcomes = notebooks.run(
            names, args.out, {k: _literal(v) for k, v in args.parameters}, folder=args.folder
        )
    for o in outcomes:
        measured = f"{notebooks.time_text(o.seconds)}, {notebooks.memory_text(o.peak_memory_bytes)}"
        state = (
            f"FAILED in {o.failed_cell}: {o.error}"
            if o.error
            else measured + (", there already" if o.skipped else "")
        )
        print(f"{o.name:32} {state}")
    if not args.refresh:
        print(f"\nopen {Path(args.out, 'index.html')} in a browser")
    return 1 if any(o.error for o in outcomes) else 0


def _literal(text: str) -> object:
    """A number, true or True, null or None, a list or a dictionary where it reads as one; else the text itself."""
    for read in (parse_json, ast.literal_eval):
        try:
            value = read(text)
        except (
            ValueError,
            SyntaxError,
            RecursionError,
            MemoryError,
        ):  # the last two: brackets nested too deeply
            continue
        if value is None or isinstance(value, bool | int | float | str | list | dict):
            return value
    return text


def doctor(args: argparse.Namespace) -> int:
    """What is here, and does it work? With --data: which images of a data set cannot be read?"""
    if args.data:
        return _check_images(args)
    facts = environment()
    for name, found in facts["found"].items():
        print(f"{name:15} {found}")
    missing = facts.index[~facts["ok"]].tolist()
    try:
        data = load_dataset("digits")
        accuracy = zero_shot_accuracy_pct(load_vlm(), data)
        print(
            f"tiny-clip       right on {accuracy:.1f} % of {len(data.test)} handwritten digits, unseen"
        )
    except (ValueError, OSError) as error:
        missing.append("tiny-clip")
        print(f"tiny-clip       BROKEN: {error}")
    print("\nall that is needed is here" if not missing else f"\nnot ready: {', '.join(missing)}")
    return 1 if missing else 0


def _train_config(args: argparse.Namespace, base: TrainConfig) -> TrainConfig:
    return replace(base, **_train_changes(args))


def _train_changes(args: argparse.Namespace) -> dict:
    """What was said on the command line of training."""
    given = {
        k: v
        for k, v in vars(args).items()
        if v is not None and k in {f.name for f in fields(TrainConfig)} - {"pretrained"}
    }
    weights = getattr(args, "student_weights", None)
    if weights is not None:
        given["pretrained"] = False if weights == "random" else weights
    return with_length(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "activekd-lite", description=sys.modules["activekd_lite"].__doc__
    )
    parser.set_defaults(command=lambda args: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    defaults, named = RunConfig(), f"{', '.join(STRATEGIES)}, or skactiveml:TypiClust and the like"
    sets = f"{', '.join([*EMBEDDED, *LAYOUTS])}, folder:/path, csv:/path/file.csv, hf:org/name, torchvision:CIFAR10"

    def command(name, function, *options):
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(command=function)
        for option in options:
            option(sub)

    def folders(sub):
        sub.add_argument(
            "--cache",
            default=".cache",
            help="folder of teacher features and generated images (.cache)",
        )
        sub.add_argument(
            "--root", default="data", help="folder of the data sets, each in its own folder (data)"
        )

    def teacher(sub):
        sub.add_argument(
            "--vlm", help=f"embedded tiny-clip, or an open_clip model ({defaults.vlm})"
        )
        sub.add_argument("--pretrained", help="open_clip tag or weights file of --vlm")
        sub.add_argument(
            "--quick-gelu",
            action=argparse.BooleanOptionalAction,
            help="was that file trained with QuickGELU? (tags know it)",
        )
        sub.add_argument(
            "--views",
            type=int,
            help="cached views of each image (1, with --paper 10; without a teacher fresh crops)",
        )
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")

    def training(sub):
        train = defaults.train
        sub.add_argument(
            "--student-weights",
            metavar="FILE",
            help="a file for its backbone, or 'random' (its own pre-trained)",
        )
        sub.add_argument(
            "--rounds", type=int, help=f"queries; one more student is trained ({defaults.rounds})"
        )
        sub.add_argument(
            "--query-size", type=int, help="labels a round (as many as there are classes)"
        )
        sub.add_argument(
            "--shots",
            type=int,
            help=f"labelled images a class at the start; 0: a cold start ({defaults.shots})",
        )
        length = sub.add_mutually_exclusive_group()
        length.add_argument("--steps", type=int, help=f"training steps a round ({train.steps})")
        length.add_argument(
            "--passes", type=float, help="passes over the labelled images per round, instead"
        )
        length.add_argument(
            "--pool-passes", type=float, help="passes over the unlabelled images per round, instead"
        )
        sub.add_argument(
            "--last-round-pool-passes",
            type=float,
            help="the same in the last round (--pool-passes)",
        )
        sub.add_argument(
            "--batch-size", type=int, help=f"labelled images a step ({train.batch_size})"
        )
        sub.add_argument("--lr", type=float, help=f"largest learning rate of AdamW ({train.lr})")
        sub.add_argument(
            "--precision",
            help="of the student: float32, bfloat16, float16 (auto: bfloat16 on CUDA)",
        )
        sub.add_argument(
            "--compile", action="store_true", default=None, help="torch.compile the student"
        )

    sources = (
        "whose probabilities a strategy selects by: both heads mixed, one head, the teacher (mixed)"
    )
    few_shot = "clap: few-shot, refitted each round (zero-shot)"
    students = f"{', '.join([*STUDENTS, *ON_FEATURES])}, or any of timm; the one that suits the data set if none"

    def one(sub):
        sub.add_argument("--teacher", choices=TEACHERS, default="zero-shot", help=few_shot)
        sub.add_argument("--student", help=students)
        sub.add_argument(
            "--paper", action="store_true", help="the paper's protocol; other options override it"
        )
        sub.add_argument("--dataset", default="digits", help=sets + " (digits)")
        sub.add_argument(
            "--average",
            choices=["normalized", "raw"],
            help="of the prompts' features (raw for clap)",
        )
        sub.add_argument(
            "--templates",
            nargs="+",
            metavar="PROMPT",
            help="your own, '{}' for the class name (the data set's)",
        )
        sub.add_argument("--pool-size", type=int, help="a random part of the pool")
        sub.add_argument(
            "--pool-per-seed",
            action="store_true",
            default=None,
            help="draw that part anew for each seed",
        )
        sub.add_argument("--strategy", help=f"{named} ({defaults.strategy})")
        sub.add_argument("--selection-source", choices=SELECTION_SOURCES, help=sources)
        sub.add_argument(
            "--no-distill",
            dest="distill",
            action="store_false",
            help="plain active learning, same start and steps",
        )
        sub.add_argument("--seed", type=int, help=f"({defaults.seed}; with --paper 1)")
        sub.add_argument(
            "--out",
            default="runs/first",
            help="folder of the run; a stopped run goes on there (runs/first)",
        )
        sub.add_argument(
            "--keep-students",
            action="store_true",
            help="keep the student of every round, not only of the last",
        )

    def many(sub):
        several = {"nargs": "+", "default": None}
        sub.add_argument(
            "grid", nargs="?", metavar="GRID.yaml", help="a file; options given here override it"
        )
        sub.add_argument("--dataset", dest="datasets", **several, help=sets + " (digits)")
        sub.add_argument("--teacher", dest="teachers", choices=TEACHERS, **several, help=few_shot)
        sub.add_argument("--student", dest="students", **several, help=students)
        sub.add_argument(
            "--strategy",
            dest="strategies",
            **several,
            help=f"{named} (the paper's six; with --paper as its code has them)",
        )
        sub.add_argument(
            "--selection-source",
            dest="selection_sources",
            choices=SELECTION_SOURCES,
            **several,
            help=f"{sources}; one or more",
        )
        sub.add_argument(
            "--no-distill",
            dest="distill",
            action="store_const",
            const=[False],
            help="without a teacher only",
        )
        sub.add_argument("--seeds", type=int, **several, help="(0; with --paper 1 to 5)")
        sub.add_argument("--paper", action="store_true", default=None, help="the paper's protocol")
        sub.add_argument(
            "--out",
            default="runs/sweep",
            help="folder of the runs; finished ones stay (runs/sweep)",
        )
        sub.add_argument(
            "--dry-run",
            action="store_true",
            help="list the runs and estimate the time that they take",
        )
        sub.add_argument(
            "--notebook",
            metavar="FILE",
            help="execute this notebook for each run, instead of training",
        )
        sub.add_argument(
            "--workers",
            type=int,
            help="processes (one for each core or GPU; 0: none, one run after another)",
        )
        sub.add_argument(
            "--memory-limit", default="auto", help="of each worker, such as 4GB (an equal share)"
        )
        sub.add_argument(
            "--scheduler",
            metavar="ADDRESS",
            help="of a Dask cluster that runs, such as tcp://node1:8786",
        )

    def finished(sub):
        sub.add_argument(
            "runs", help="folder of finished runs, of `sweep --out` or several of `run --out`"
        )
        sub.add_argument("--out", metavar="FILE", help="the page (report.html in that folder)")

    def jobs(sub):
        sub.set_defaults(distill=True, teacher="zero-shot")
        sub.add_argument(
            "job",
            nargs="?",
            default="build",
            choices=["build", "info", "verify", "prune"],
            help="(build)",
        )
        sub.add_argument("--dataset", default="digits", help=sets + " (digits)")
        sub.add_argument("--paper", action="store_true", help="as the paper's protocol needs them")
        sub.add_argument("--pool-size", type=int, help="a random part of the pool, as in `run`")
        sub.add_argument(
            "--pool-per-seed",
            action="store_true",
            default=None,
            help="draw that part anew for each seed",
        )
        sub.add_argument("--seed", type=int, help="of --pool-per-seed (0; with --paper 1)")
        sub.add_argument(
            "--unused-days", type=float, help="prune: also those that nobody opened for so long"
        )
        sub.add_argument("--yes", action="store_true", help="prune: delete them")

    def check(sub):
        sub.add_argument("check", choices=["check"], help="look for its files")
        sub.add_argument(
            "dataset",
            metavar="NAME",
            help=f"{', '.join(LAYOUTS)}, folder:/path or csv:/path/file.csv",
        )

    def course(sub):
        sub.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help='"04" or "04_active_learning_run" (00 to 05; else all)',
        )
        sub.add_argument(
            "--out",
            default="runs/demo",
            help="folder of the executed notebooks and their index.html (runs/demo)",
        )
        sub.add_argument(
            "-p", nargs=2, action="append", default=[], dest="parameters", metavar=("NAME", "VALUE"),
            help="a parameter, for those of the notebooks that know it; the trainings are then kept under --out",
        )  # fmt: skip
        sub.add_argument(
            "--from",
            dest="folder",
            metavar="DIR",
            help="where the notebooks are (notebooks/ of the clone)",
        )
        sub.add_argument(
            "--refresh",
            action="store_true",
            help="write outputs, time and memory into the notebooks instead",
        )
        sub.add_argument(
            "--student",
            metavar="DIR",
            help="copy them without outputs and solutions, for students, instead",
        )
        sub.add_argument(
            "--solutions",
            metavar="DIR",
            help="copy them without outputs and with the solutions filled in, instead",
        )

    def looked_at(sub):
        sub.add_argument("--data", help=f"one of {', '.join(LAYOUTS)}, folder:, csv:")

    command("run", run, folders, one, training, teacher)
    command("sweep", run_sweep, folders, many, training, teacher)
    command("report", run_report, finished)
    command("cache", run_cache, folders, jobs, teacher)
    command("data", data, folders, check)
    command("notebooks", run_notebooks, course)
    command("doctor", doctor, folders, looked_at)
    return parser


if __name__ == "__main__":
    sys.exit(main())
