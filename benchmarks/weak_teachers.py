"""When does a weak teacher hurt? The trainings of notebook 07 on `digits`, with ten seeds.

    OMP_NUM_THREADS=1 python benchmarks/weak_teachers.py    # writes data/study/weak-teachers.csv

One student per teacher, labels per class and seed; accuracies are of the test images, in percent.
A seed draws the labels, the wrong words, and the student's initial weights and batches.
"""

import argparse
from dataclasses import replace

import pandas as pd
import torch

import activekd_lite as akd
from activekd_lite.experiments.config import make_teacher
from activekd_lite.scores import accuracy_pct
from activekd_lite.teachers import TEACHERS
from activekd_lite.utils.seeding import generator

FEW, MANY = 1, 10  # labels per class
SHARES = (0, 0.25, 0.5, 1)  # of the classes whose words are passed on
COLUMNS = "teacher wrong_share count seed teacher_pct student_pct ce_pct kd_pct student_02_pct"


def wrong_names(names: list[str], share: float, seed: int) -> list[str]:
    """Return the class names, where a share of the classes has the name of another one."""
    order = torch.randperm(len(names), generator=generator(seed, "wrong words")).tolist()
    moved = order[: max(2, round(share * len(order))) if share else 0]
    wrong = dict(zip(moved, [*moved[-1:], *moved], strict=False))
    return [names[wrong.get(c, c)] for c in range(len(names))]


def strangers(base, weak_pct: float, best_pct: float, seed: int):
    """Return `base`, where so many images have another one's answer that weak_pct are right."""
    share, parts = (best_pct - weak_pct) / (best_pct - 100 / base.num_classes), []
    for logits in (base.logits(torch.arange(len(base))), base.test_probs().log()):
        order = torch.randperm(len(logits), generator=generator(seed, "strangers"))
        chosen = order[: round(share * len(logits))]
        parts.append(logits.clone())
        parts[-1][chosen] = logits[chosen.roll(1)]
    return akd.teacher.from_logits(parts[0], test=parts[1])


def train(data, teacher, count: int, seed: int, steps: int) -> list[float | None]:
    """Return the test accuracies of teacher, student, heads, and student at kd_weight 0.2."""
    config = akd.TrainConfig(steps=steps)
    run = akd.run_active_learning(
        data, teacher, rounds=0, shots=count, train=config, seed=seed, device="cpu", progress=False
    )
    record, said = run.records[0], run.predict(data.test.images)
    less = None if teacher is None else 0.8 * said.ce_probs + 0.2 * said.kd_probs
    less = None if less is None else accuracy_pct(less, data.test.labels)
    heads = record.ce_accuracy_pct, record.kd_accuracy_pct
    return [record.teacher_accuracy_pct, record.accuracy_pct, *heads, less]


def measure(data, vlm, seed: int, options: argparse.Namespace) -> list[tuple]:
    """Return a row of COLUMNS for each training of a seed."""
    rows, how = [], dict(cache_root=options.cache, average="normalized", progress=False)

    def named(kind: str, share: float):
        names = wrong_names(data.classnames, share, seed)
        return make_teacher(
            kind, vlm, replace(data, pool=replace(data.pool, classnames=names)), **how
        )

    def add(teacher, name: str, share: float, count: int):
        rows.append((name, share, count, seed, *train(data, teacher, count, seed, options.steps)))

    for count in (FEW, MANY):
        add(None, "none", 0, count)
        for share in SHARES:
            add(named("zero-shot", share), "zero-shot", share, count)
    known = {row[1]: row[4] for row in rows if row[0] == "zero-shot"}
    add(strangers(named("zero-shot", 0), known[0.5], known[0], seed), "strangers' answers", 0, FEW)
    for control in ("zero-shot+shuffled", "zero-shot+noise"):
        add(named(control, 0), control, 0, FEW)
    for kind in TEACHERS[1:]:
        for share in (0, 0.5):
            add(named(kind, share), kind, share, MANY)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cache", default=".cache")
    parser.add_argument("--out", default="data/study/weak-teachers.csv")
    options = parser.parse_args()
    data = akd.load_dataset("digits", cache_root=options.cache)
    vlm, rows = akd.load_vlm(device="cpu"), []
    for seed in options.seeds:
        rows += measure(data, vlm, seed, options)
        pd.DataFrame(rows, columns=COLUMNS.split()).round(2).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
