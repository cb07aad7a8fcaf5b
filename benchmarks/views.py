"""How many views are enough? Accuracy with V cached views per image, compared with fresh crops.

    OMP_NUM_THREADS=1 python benchmarks/views.py    # 100 runs, 65 minutes on one core; resumable
    python benchmarks/views.py --dataset digits --seeds 0 1

With a teacher, "online" encodes a fresh crop at every step; without one, views are augmentation
only. Selection is random: all runs of a seed have the same labels and steps in every round, and
differ only in their views.
"""

import argparse
from pathlib import Path

import pandas as pd
from online import OnlineTeacher

import activekd_lite as akd
from activekd_lite.analysis.paired import mean_interval
from activekd_lite.experiments.config import make_teacher
from activekd_lite.utils.views import FRESH

COUNTS = (1, 2, 5, 10)


def run_one(vlm, data, taught, count, seed, out, cache):
    """Run once. taught: with a teacher; count: cached views per image, or "online"."""
    online = count == "online"
    views = akd.Views(FRESH if online else count, augmentation=data.pool.augmentation)
    teacher = None
    if taught and online:
        weights = vlm.text_weights(data.classnames, data.templates)
        teacher = OnlineTeacher(vlm, data.pool, weights, views)
    elif taught:
        teacher = make_teacher("zero-shot", vlm, data, views, cache, progress=False)
    folder = Path(out) / data.name / f"{'views' if taught else 'plain'}-{count}" / f"seed{seed}"
    options = {"rounds": 8, "query_size": data.pool.num_classes, "seed": seed, "views": views}
    options |= {"device": str(vlm.device), "out": folder}
    result = akd.run_active_learning(data, teacher, strategy="random", **options)
    return {
        "dataset": data.name,
        "teacher": taught,
        "views": str(count),
        "seed": seed,
        "aulc": result.aulc_pct,
        "first": result.records[0].accuracy_pct,
        "last": result.records[-1].accuracy_pct,
        "seconds": sum(r.seconds["train"] for r in result.records),
    }


def mean_text(values, sign=""):
    mean, half = mean_interval(values)
    return f"{mean:{sign}.1f} ± {half:.1f}" if len(values) > 1 else f"{mean:{sign}.1f}"


def report(table):
    print("| data set | teacher | views | AULC, % | - online | first round, % | ", end="")
    print("last round, % | - online | training, s |\n|" + 9 * "---|")
    for (dataset, taught), runs in table.groupby(["dataset", "teacher"], sort=False):
        online = runs[runs["views"] == "online"].set_index("seed")
        for views, rows in runs.groupby("views", sort=False):
            rows = rows.set_index("seed")
            gaps = ["", ""]
            if views != "online":
                gaps = [mean_text((rows[c] - online[c]).dropna(), "+") for c in ("aulc", "last")]
            aulc, first, last = (mean_text(rows[c]) for c in ("aulc", "first", "last"))
            cells = [dataset, "with" if taught else "without", views, aulc, gaps[0], first, last]
            print(f"| {' | '.join([*cells, gaps[1]])} | {rows['seconds'].median():.0f} |")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", nargs="+", default=["digits", "shapes"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", default="runs/views")
    parser.add_argument("--cache", default=".cache")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def main():
    args = parse()
    vlm, rows = akd.load_vlm(device=args.device), []
    for name in args.dataset:
        data = akd.load_dataset(name, cache_root=args.cache)
        for seed in args.seeds:
            rows += [
                run_one(vlm, data, taught, count, seed, args.out, args.cache)
                for taught in (True, False)
                for count in (*COUNTS, "online")
            ]
    keys, order = ["dataset", "teacher"], [True, False]
    table = pd.DataFrame(rows).sort_values(keys, ascending=order, kind="stable")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    table.to_csv(Path(args.out) / "views.csv", index=False)
    report(table)


if __name__ == "__main__":
    main()
