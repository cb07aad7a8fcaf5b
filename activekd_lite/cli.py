"""The command line: the names of the package, one subcommand for each job."""

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import psutil
import torch

from activekd_lite import plots, sweep
from activekd_lite.cache import TeacherCache
from activekd_lite.datasets import EMBEDDED, Dataset, load_dataset
from activekd_lite.device import resolve_device
from activekd_lite.images import damaged
from activekd_lite.loop import run_active_learning
from activekd_lite.metrics import accuracy_pct
from activekd_lite.sources import LAYOUTS, find, missing_parts
from activekd_lite.strategies import PAPER_STRATEGIES, STRATEGIES
from activekd_lite.students import STUDENTS
from activekd_lite.training import TrainConfig
from activekd_lite.vlm import VLM, load_vlm

CORE = ("torch", "torchvision", "open_clip_torch", "numpy", "pandas", "scikit-learn", "scipy", "safetensors", "plotly")
OPTIONAL = (
    "jupyterlab",
    "papermill",
    "ipywidgets",
    "umap-learn",
    "nbval",
    "timm",
    "scikit-activeml",
    "dask",
    "matplotlib",
)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"activekd-lite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("activekd-lite: stopped; the same command goes on after the last whole round", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> None:
    """One run of active learning."""
    data = _load(args.dataset, args)
    teacher = sweep.zero_shot_teacher(load_vlm(args.vlm, args.pretrained, args.device), data, args.views, args.cache)
    stored = Path(args.out, "rounds.jsonl")
    before = len(stored.read_text(encoding="utf-8").splitlines()) if stored.is_file() else 0
    result = run_active_learning(
        data, teacher if args.distill else None, strategy=args.strategy, rounds=args.rounds, seed=args.seed,
        query_size=_query_size(args, data), shots=args.shots, student=args.student,
        train=_train_config(args), views=teacher.cache.views, out=args.out, device=args.device,
    )  # fmt: skip
    columns = ["round", "labeled_count", "accuracy_pct", "calibration_error_pct", "covering_radius"]
    print(result.to_frame()[columns].to_string(index=False, float_format="%.2f"))
    print(f"\nmean accuracy over the rounds (AULC): {result.aulc_pct:.1f} %")
    print(f"the run is in {args.out}" + (f"; {before} of its rounds were there already" if before else ""))


def run_sweep(args: argparse.Namespace) -> None:
    """Strategies with and without distillation, as many seeds as named."""
    grid = sweep.Grid(
        datasets=args.dataset, strategies=args.strategy, seeds=args.seeds, rounds=args.rounds, query_size=args.query_size,
        shots=args.shots, views=args.views, vlm=args.vlm, pretrained=args.pretrained, train=_train_config(args),
    )  # fmt: skip
    results = sweep.run(grid, args.out, cache_root=args.cache, data_root=args.root, device=args.device)
    print(f"\nmean test accuracy over {args.rounds + 1} rounds (AULC, %), ± 95 % interval over {len(args.seeds)} seed(s)\n")
    print(sweep.summary(results).to_string(index=False))
    if any(r.config["strategy"] == "pcoreset_teacher" or r.config["shots"] == 0 for r in results):
        print("(blank: pcoreset_teacher and a cold start are possible with a teacher only)")
    vlm = load_vlm(args.vlm, args.pretrained, args.device)
    for data in (_load(name, args) for name in args.dataset):
        page = Path(args.out) / f"{data.name}-learning-curves.html"
        of = [r for r in results if r.config["dataset"] == data.name]
        alone = zero_shot_accuracy_pct(vlm, data)
        plots.learning_curves(of, teacher_accuracy_pct=alone).write_html(page, include_plotlyjs=True)
        print(f"\n{data.name}: the teacher alone is right on {alone:.1f} % of the test images; learning curves in {page}")


def zero_shot_accuracy_pct(vlm: VLM, data: Dataset) -> float:
    """How often the VLM, asked with the class names alone, is right on the test images, in percent."""
    weights = vlm.text_weights(data.classnames, data.templates)
    return accuracy_pct(vlm.zero_shot_probs(data.test.images, weights), data.test.labels)


def cache(args: argparse.Namespace) -> None:
    """Encode a data set's pool with the teacher, or open what is there."""
    vlm = load_vlm(args.vlm, args.pretrained, args.device)
    built = TeacherCache.build(vlm, _load(args.dataset, args).pool, args.views, args.cache)
    views, size, dim = built.features.shape
    print(
        f"{built.path}: {views} views x {size} images x {dim} numbers, {built.features.nbytes / 2**20:.1f} MiB, checksums right"
    )


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
        print(f"{len(gone)} of the images are missing:\n" + "\n".join(f"  {path}" for path in gone[:20]))
        print("  ..." if len(gone) > 20 else "", end="")
    return 1 if gone else 0


def _check_images(args: argparse.Namespace) -> int:
    """Decode every image of --data and list those that cannot be read."""
    source = find(args.data, args.root)
    bad = damaged(source.pool[0] + source.test[0])
    for path, reason in bad.items():
        print(f"{path}: {reason}")
    print(f"{len(bad)} of {len(source.pool[0]) + len(source.test[0])} images of {source.name} cannot be read")
    return 1 if bad else 0


def doctor(args: argparse.Namespace) -> int:
    """What is here, and does it work? With --data: which images of a data set cannot be read?"""
    if args.data:
        return _check_images(args)
    versions = {name: _version(name) for name in (*CORE, *OPTIONAL)}
    memory = psutil.virtual_memory()
    print(f"activekd-lite   {_version('activekd-lite') or 'not installed as a package'}")
    print(f"python          {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"cores           {os.cpu_count()} ({torch.get_num_threads()} used by torch)")
    print(f"memory          {memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}")
    print(
        f"device          {resolve_device('auto')}"
        + (f" ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "")
    )
    for name in CORE:
        print(f"{name:15} {versions[name] or 'MISSING: run make install'}")
    for name in OPTIONAL:
        print(f"{name:15} {versions[name] or 'not installed (optional)'}")
    missing = [name for name in CORE if not versions[name]]
    try:
        data = load_dataset("digits")
        accuracy = zero_shot_accuracy_pct(load_vlm(), data)
        print(f"tiny-clip       right on {accuracy:.1f} % of {len(data.test)} handwritten digits, unseen")
    except (ValueError, OSError) as error:
        missing.append("tiny-clip")
        print(f"tiny-clip       BROKEN: {error}")
    print("\nall that is needed is here" if not missing else f"\nnot ready: {', '.join(missing)}")
    return 1 if missing else 0


def _query_size(args: argparse.Namespace, data: Dataset) -> int:
    return data.pool.num_classes if args.query_size is None else args.query_size


def _load(name: str, args: argparse.Namespace) -> Dataset:
    return load_dataset(name, args.cache if name in EMBEDDED else args.root)


def _train_config(args: argparse.Namespace) -> TrainConfig:
    return TrainConfig(steps=args.steps, batch_size=args.batch_size, lr=args.lr)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("activekd-lite", description=sys.modules["activekd_lite"].__doc__)
    parser.set_defaults(command=lambda args: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    defaults, named = TrainConfig(), f"{', '.join(STRATEGIES)}, or skactiveml:TypiClust and the like"

    sets = f"{', '.join([*EMBEDDED, *LAYOUTS])}, folder:/path, csv:/path/file.csv, torchvision:CIFAR10"

    def command(name, function, *options):
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__,
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
        sub.set_defaults(command=function)
        sub.add_argument("--cache", default=".cache", help="folder of teacher features and generated images")
        sub.add_argument("--root", default="data", help="folder of the data sets, each in its own folder")
        for option in options:
            option(sub)

    def teacher(sub):
        sub.add_argument("--vlm", default="tiny-clip", help="embedded tiny-clip, or an open_clip model")
        sub.add_argument("--pretrained", help="open_clip tag or weights file of --vlm")
        sub.add_argument("--views", type=int, default=5, help="augmented views of each image")
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")

    def training(sub):
        sub.add_argument("--rounds", type=int, default=8, help="queries; one more student is trained")
        sub.add_argument("--query-size", type=int, help="labels a round; as many as there are classes where it is not given")
        sub.add_argument("--shots", type=int, default=1, help="labelled images a class at the start; 0: a cold start")
        sub.add_argument("--steps", type=int, default=defaults.steps, help="training steps a round")
        sub.add_argument("--batch-size", type=int, default=defaults.batch_size, help="labelled images a step")
        sub.add_argument("--lr", type=float, default=defaults.lr, help="largest learning rate of AdamW")

    def one(sub):
        sub.add_argument("--dataset", default="digits", help=sets)
        sub.add_argument("--strategy", default="pcoreset", help=named)
        sub.add_argument("--student", help=f"{', '.join(STUDENTS)}; the one that suits the data set where none is named")
        sub.add_argument(
            "--no-distill", dest="distill", action="store_false", help="plain active learning, same start and steps"
        )
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--out", default="runs/first", help="folder of the run; a stopped run goes on there")

    def many(sub):
        sub.add_argument("--dataset", nargs="+", default=["digits"], help=sets)
        sub.add_argument("--strategy", nargs="+", default=list(PAPER_STRATEGIES), help=named)
        sub.add_argument("--seeds", nargs="+", type=int, default=[0])
        sub.add_argument("--out", default="runs/sweep", help="folder of the runs; finished ones are not run again")

    def check(sub):
        sub.add_argument("check", choices=["check"], help="look for its files")
        sub.add_argument("dataset", metavar="NAME", help=f"{', '.join(LAYOUTS)}, folder:/path or csv:/path/file.csv")

    command("run", run, one, training, teacher)
    command("sweep", run_sweep, many, training, teacher)
    command("cache", cache, lambda sub: sub.add_argument("--dataset", default="digits", help=sets), teacher)
    command("data", data, check)
    command("doctor", doctor, lambda sub: sub.add_argument("--data", help=f"one of {', '.join(LAYOUTS)}, folder:, csv:"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
