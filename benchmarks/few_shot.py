"""How good is a teacher with few labels? Test accuracy with 1 to 16 labels per class.

    OMP_NUM_THREADS=1 python benchmarks/few_shot.py         # minutes on one core
    python benchmarks/few_shot.py --teachers zero-shot rla --seeds 0 1 --vlm tiny-clip-small

The labelled images are drawn at random from the pool, the same for all teachers of a seed. Nothing
is tuned: the settings are the teachers' own defaults. Intervals: 95 %, over seeds (Student's t).
"""

import argparse
import time

import pandas as pd

import activekd_lite as akd
from activekd_lite.analysis.paired import mean_interval
from activekd_lite.experiments.config import make_teacher
from activekd_lite.scores import accuracy_pct
from activekd_lite.teachers import TEACHERS
from activekd_lite.utils.seeding import generator


def labeled(data, per_class: int, seed: int) -> akd.LabelState:
    """Return a state with that many labels per class, drawn at random."""
    chosen = data.oracle.initial_indices(per_class, generator(seed, "few-shot benchmark"))
    state = akd.LabelState.empty(len(data.pool))
    return state.with_labels(chosen, data.oracle.label(chosen), round=0)


def measure(vlm, dataset: str, options: argparse.Namespace) -> list[dict]:
    data, rows = akd.load_dataset(dataset, cache_root=options.cache), []
    for name in options.teachers:
        teacher = make_teacher(name, vlm, data, options.views, options.cache, progress=False)
        for per_class in options.labels:
            for seed in options.seeds:
                start = time.perf_counter()
                fitted = teacher.fitted(labeled(data, per_class, seed), seed)
                seconds = time.perf_counter() - start
                accuracy = accuracy_pct(fitted.test_probs(), data.test.labels)
                row = {"dataset": dataset, "teacher": name, "labels": per_class, "seed": seed}
                rows.append(row | {"accuracy_pct": accuracy, "seconds": seconds})
    return rows


def show(table: pd.DataFrame) -> None:
    """Print a Markdown table: a row per data set and teacher, a column per number of labels."""
    labels = table["labels"].unique()
    columns = [f"{n} per class" for n in labels]
    print(f"| data set | teacher | {' | '.join(columns)} | longest fit, s |")
    print("|" + (len(columns) + 3) * "---|")
    for (dataset, name), runs in table.groupby(["dataset", "teacher"], sort=False):
        cells = [text_of(runs[runs["labels"] == n]["accuracy_pct"]) for n in labels]
        print(f"| {dataset} | {name} | {' | '.join(cells)} | {runs['seconds'].max():.1f} |")


def show_gains(table: pd.DataFrame, rivals: tuple[str, ...] = ("zero-shot", "clap")) -> None:
    """Print how much better each teacher is than zero-shot and CLAP, paired by seed."""
    wide = table.pivot_table("accuracy_pct", ["dataset", "labels", "seed"], "teacher", sort=False)
    labels = table["labels"].unique()
    print(f"| data set | teacher | minus | {' | '.join(f'{n} per class' for n in labels)} |")
    print("|" + (len(labels) + 3) * "---|")
    for dataset, runs in wide.groupby("dataset", sort=False):
        for name in (c for c in wide.columns if c not in rivals):
            for rival in (r for r in rivals if r in wide.columns):
                gains = (runs[name] - runs[rival]).groupby("labels", sort=False)
                cells = " | ".join(text_of(values, "+") for _, values in gains)
                print(f"| {dataset} | {name} | {rival} | {cells} |")


def text_of(values: pd.Series, sign: str = "") -> str:
    mean, half = mean_interval(values)
    return f"{mean:{sign}.1f} ± {half:.1f}" if half > 0 else f"{mean:{sign}.1f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--datasets", nargs="+", default=["digits", "shapes"])
    add("--teachers", nargs="+", default=list(TEACHERS))
    add("--labels", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="per class")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--views", type=int, default=1, help="cached views per image")
    add("--vlm", default="tiny-clip")
    add("--cache", default=".cache")
    options = parser.parse_args()
    vlm = akd.load_vlm(options.vlm, device="cpu")
    table = pd.DataFrame([row for name in options.datasets for row in measure(vlm, name, options)])
    show(table)
    print()
    show_gains(table)


if __name__ == "__main__":
    main()
