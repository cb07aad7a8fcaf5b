"""Do teacher balls split by label and shrink, as the proposition of arXiv:2506.00910 has it?

    OMP_NUM_THREADS=1 python benchmarks/ball_shrinkage.py --student linear
    python benchmarks/ball_shrinkage.py --student tiny-cnn --rounds 0 2 5 --seeds 0 1 2

Per data set, round, kd_weight and part of the pool (labelled, unlabelled): the median over balls
and labels of student radius / teacher radius, which is kd_weight for the ideal student. Beside it
each head alone, and two students that are ideal in one head: `ce constant`, whose ce head gives all
images of a part its mean, and `kd copied`, whose kd head is the teacher. Means over seeds, with 95
% intervals. Trained students are kept in the cache.
"""

import argparse
import itertools

import pandas as pd
import torch
from distilled import STUDENTS, load, random_state, train

import activekd_lite as akd
from activekd_lite.analysis.paired import mean_interval

LEAST = 3  # images of a ball and label: labelled images are few
WEIGHTS = (0.25, 0.5, 0.75)


def part_means(probs, groups):
    """Replace each row of probs (N, C) by the mean of its group."""
    centers, _ = akd.metrics.balls(probs, groups)
    return centers[groups.unique(return_inverse=True)[1]]


def measure(teacher, ce, kd, labels, kd_weight):
    """Return what one student did to the balls of these images."""
    groups = teacher.argmax(dim=1) * teacher.shape[1] + labels
    mixed, flat = ((1 - kd_weight) * head + kd_weight * kd for head in (ce, part_means(ce, groups)))
    copied = (1 - kd_weight) * ce + kd_weight * teacher
    students = {"mixed": mixed, "ce": ce, "kd": kd, "ce constant": flat, "kd copied": copied}
    found = {
        name: akd.metrics.ball_shrinkage(teacher, probs, labels, least=LEAST)
        for name, probs in students.items()
    }
    mixed = found["mixed"]
    shares = {"split": mixed.split_share, "split, teacher": mixed.teacher_split_share}
    spread = found["ce"].parts["ratio"].corr(mixed.parts["ratio"], method="spearman")
    values = {"parts": len(mixed.parts), "shift": mixed.parts["shift"].median()}
    return values | shares | {"rank corr. ce": spread} | {k: v.ratio for k, v in found.items()}


def rows_of(dataset, student, seed, rounds, cache):
    inputs, _ = load(dataset, student, cache)
    state = random_state(inputs.data, seed, rounds)
    heads = train(dataset, student, seed, rounds, akd.TrainConfig(), cache)
    teacher, truth = (
        inputs.teacher.probs().double(),
        inputs.data.oracle.label(torch.arange(len(inputs.data.pool))),
    )
    ce, kd = (logits.double().softmax(dim=1) for logits in (heads.pool_ce, heads.pool_kd))
    parts = {"labelled": state.labeled_indices, "unlabelled": state.unlabeled_indices}
    for (name, rows), weight in itertools.product(parts.items(), WEIGHTS):
        keys = {"dataset": dataset, "round": rounds, "kd_weight": weight, "images": name}
        found = measure(teacher[rows], ce[rows], kd[rows], truth[rows], weight)
        yield keys | {"seed": seed} | found


def interval(values):
    values = values.dropna()
    mean, half = mean_interval(values) if len(values) else (float("nan"), 0)
    return f"{mean:.2f} ± {half:.2f}" if len(values) > 1 else f"{mean:.2f}"


def report(table):
    keys = ["dataset", "round", "kd_weight", "images"]
    columns = [name for name in table if name not in (*keys, "seed")]
    print(f"| {' | '.join([*keys, 'n', *columns])} |\n|{(len(keys) + 1 + len(columns)) * '---|'}")
    for key, runs in table.groupby(keys, sort=True):
        cells = [*map(str, key), str(len(runs)), *(interval(runs[name]) for name in columns)]
        print(f"| {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["digits", "shapes"])
    parser.add_argument("--student", default="linear", help=f"such as {' or '.join(STUDENTS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rounds", nargs="+", type=int, default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--cache", default=".cache")
    parser.add_argument("--csv", help="also write a row per seed here")
    args = parser.parse_args()
    runs = itertools.product(args.datasets, args.rounds, args.seeds)
    rows = [row for d, r, s in runs for row in rows_of(d, args.student, s, r, args.cache)]
    table = pd.DataFrame(rows)
    if args.csv:
        table.to_csv(args.csv, index=False)
    report(table)


if __name__ == "__main__":
    main()
