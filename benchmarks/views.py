"""How many views are enough? Accuracy with V cached views of each image, against the teacher run online on fresh crops; and
without a teacher, where views are nothing but augmentation.

    OMP_NUM_THREADS=1 python benchmarks/views.py            # 100 runs, 65 minutes on one core; goes on where it stopped
    python benchmarks/views.py --dataset digits --seeds 0 1

Random choice, so that the runs of a seed have the same labels and the same steps in every round, and differ in the views alone.
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


def run_one(vlm, data, taught, views, seed, out, cache):
    """taught: by the teacher, or plain; views: a count, or "online"."""
    count = FRESH if views == "online" else views
    views_of_it, teacher = akd.Views(count, augmentation=data.pool.augmentation), None
    if taught and views == "online":
        teacher = OnlineTeacher(
            vlm, data.pool, vlm.text_weights(data.classnames, data.templates), views_of_it
        )
    elif taught:
        teacher = make_teacher("zero-shot", vlm, data, views_of_it, cache, progress=False)
    result = akd.run_active_learning(
        data, teacher, strategy="random", rounds=8, query_size=data.pool.num_classes, seed=seed, views=views_of_it,
        device=str(vlm.device), out=Path(out) / data.name / f"{'views' if taught else 'plain'}-{views}" / f"seed{seed}",
    )  # fmt: skip
    seconds = sum(r.seconds["train"] for r in result.records)
    return {"dataset": data.name, "teacher": taught, "views": str(views), "seed": seed, "aulc": result.aulc_pct,
            "first": result.records[0].accuracy_pct, "last": result.records[-1].accuracy_pct, "seconds": seconds}  # fmt: skip


def shown(values, sign=""):
    mean, half = mean_interval(values)
    return f"{mean:{sign}.1f} ± {half:.1f}" if len(values) > 1 else f"{mean:{sign}.1f}"


def report(table):
    print(
        "| data set | teacher | views | AULC, % | - online | first round, % | last round, % | - online | training, s |"
    )
    print("|" + 9 * "---|")
    for (dataset, taught), of in table.groupby(["dataset", "teacher"], sort=False):
        online = of[of["views"] == "online"].set_index("seed")
        for views, rows in of.groupby("views", sort=False):
            rows = rows.set_index("seed")
            gap, last_gap = ((rows[c] - online[c]).dropna() for c in ("aulc", "last"))
            apart = ["", ""] if views == "online" else [shown(gap, "+"), shown(last_gap, "+")]
            cells = [
                dataset,
                "with" if taught else "without",
                views,
                shown(rows["aulc"]),
                apart[0],
                shown(rows["first"]),
            ]
            print(
                f"| {' | '.join([*cells, shown(rows['last']), apart[1]])} | {rows['seconds'].median():.0f} |"
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", nargs="+", default=["digits", "shapes"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", default="runs/views")
    parser.add_argument("--cache", default=".cache")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    vlm, rows = akd.load_vlm(device=args.device), []
    for name in args.dataset:
        data = akd.load_dataset(name, cache_root=args.cache)
        for seed in args.seeds:
            rows += [
                run_one(vlm, data, taught, views, seed, args.out, args.cache)
                for taught in (True, False)
                for views in (*COUNTS, "online")
            ]
    table = pd.DataFrame(rows).sort_values(
        ["dataset", "teacher"], ascending=[True, False], kind="stable"
    )
    Path(args.out).mkdir(parents=True, exist_ok=True)
    table.to_csv(Path(args.out) / "views.csv", index=False)
    report(table)


if __name__ == "__main__":
    main()
