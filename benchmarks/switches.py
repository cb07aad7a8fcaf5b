"""What each switch of distillation does to accuracy and calibration, changed alone.

    OMP_NUM_THREADS=1 python benchmarks/switches.py --student linear
    python benchmarks/switches.py --student linear --strategy pcoreset --seeds 0 1 2
    python benchmarks/switches.py --student tiny-cnn --datasets digits --seeds 0 1 2

Accuracy and expected calibration error on the test set after 5 rounds, and their paired difference
from the default; means over seeds with 95 % intervals. Trained students are kept in the cache.
"""

import argparse
import itertools
from pathlib import Path

import pandas as pd
from ball_shrinkage import interval
from distilled import STUDENTS, load, random_state, train

import activekd_lite as akd
from activekd_lite.calibration import fit_temperature, tempered

ROUNDS = 5
SWITCHES = {
    "default": {},
    "heads = single": {"heads": "single"},
    "distill_on = labeled": {"distill_on": "labeled"},
    "distill_on = unlabeled": {"distill_on": "unlabeled"},
    "kd_loss_weight = 0.2": {"kd_loss_weight": 0.2},
    "kd_loss_weight = 0.8": {"kd_loss_weight": 0.8},
    "temperature = 1": {"temperature": 1.0},
    "temperature = 4": {"temperature": 4.0},
    "standardize_logits": {"standardize_logits": True},
    "standardize_logits, heads = single": {"standardize_logits": True, "heads": "single"},
    "kd_weight = 0.25": {"kd_weight": 0.25},
    "kd_weight = 0.75": {"kd_weight": 0.75},
    "calibrate": {"calibrate": True},
    "no teacher": None,
}


def after_random(dataset, student, seed, config, taught, cache):
    """Return accuracy and calibration error after ROUNDS of `random`, as in a run."""
    data = load(dataset, student, cache)[0].data
    heads = train(dataset, student, seed, ROUNDS, config, cache, taught)
    weight, labels = config.mixing(taught, evaluation=True)["kd_weight"], data.test.labels
    probs = heads.probs("test", weight)
    if config.calibrate:
        state = random_state(data, seed, ROUNDS)
        rows = state.labeled_indices
        known = heads.probs("pool", weight)[rows]
        probs = tempered(probs, fit_temperature(known, state.labels[rows]))
    return akd.scores.accuracy_pct(probs, labels), akd.scores.calibration_error_pct(probs, labels)


def after_run(dataset, student, strategy, seed, config, taught, cache, name):
    """Return accuracy and calibration error after a run of another strategy; resumable."""
    inputs, _ = load(dataset, student, cache)
    words = {"strategy": strategy, "rounds": ROUNDS, "seed": seed, "student": student}
    out = Path(cache) / "switches" / dataset / student / strategy / name / f"seed{seed}"
    result = akd.run_active_learning(
        inputs.data,
        inputs.teacher if taught else None,
        query_size=inputs.data.pool.num_classes,
        views=inputs.teacher.views,
        features=inputs.features,
        train=config,
        out=out,
        device="cpu",
        progress=False,
        **words,
    )
    return result.records[-1].accuracy_pct, result.records[-1].calibration_error_pct


def rows_of(args):
    for dataset, (name, changes) in itertools.product(args.datasets, SWITCHES.items()):
        if args.only and name not in args.only:
            continue
        config, taught = akd.TrainConfig(**(changes or {})), changes is not None
        for seed in args.seeds:
            if args.strategy == "random":
                scores = after_random(dataset, args.student, seed, config, taught, args.cache)
            else:
                how = (dataset, args.student, args.strategy, seed, config, taught)
                scores = after_run(*how, args.cache, name)
            yield dataset, name, seed, *scores


def report(table):
    print("| data set | switch | n | accuracy, % | - default | calibration error, % | - default |")
    print("|" + 7 * "---|")
    for dataset, runs in table.groupby("dataset", sort=False):
        by_seed = runs.set_index(["switch", "seed"])[["accuracy", "error"]]
        for name in runs["switch"].unique():
            found = by_seed.loc[name]
            gaps = found - by_seed.loc["default"]
            cells = [dataset, name, str(len(found))]
            for value in ("accuracy", "error"):
                gap = "" if name == "default" else interval(gaps[value])
                cells += [interval(found[value]), gap]
            print(f"| {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["digits", "shapes"])
    parser.add_argument("--student", default="linear", help=f"such as {' or '.join(STUDENTS)}")
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", help="names of switches; include 'default'")
    parser.add_argument("--cache", default=".cache")
    args = parser.parse_args()
    columns = ["dataset", "switch", "seed", "accuracy", "error"]
    report(pd.DataFrame(rows_of(args), columns=columns))


if __name__ == "__main__":
    main()
