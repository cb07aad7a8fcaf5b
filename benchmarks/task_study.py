"""The study over tasks: the tables that data/study ships, from the runs that are finished.

    activekd-lite sweep data/study/tasks.yaml --out runs/tasks
    activekd-lite sweep data/study/structure.yaml --out runs/structure
    python benchmarks/task_study.py
    python docs/make_tables.py                          # writes the numbers into the texts

Writes tasks.parquet and structure.parquet, a row per round, and cards.parquet, a row per task.
Seeds that not every task has yet are left out. A card takes one training, with the steps of the
study and seed 0; cards that are there are kept.
"""

import argparse
from pathlib import Path

import pandas as pd
from tqdm import tqdm

import activekd_lite as akd
from activekd_lite.experiments import sweep
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.files import write_atomic

CORE = ("random", "coreset", "pcoreset")
NOT_KEPT = ["run", "query_indices", "peak_memory_bytes", "device", "per_class_accuracy_pct"]


def whole_seeds(table: pd.DataFrame, teacher: str) -> pd.DataFrame:
    """Keep the seeds in which every task has the runs of the hypothesis with this teacher."""
    needed = table[(table["teacher"] == teacher) & table["strategy"].isin(CORE)]
    count = needed.groupby("seed")["run"].nunique()
    seeds = count.index[count == table["dataset"].nunique() * len(CORE)]
    return table[table["seed"].isin(seeds)]


def cards(known: pd.DataFrame, grid: sweep.Grid, cache: str) -> pd.DataFrame:
    """Return the cards of all tasks of a grid, computing those that are not known."""
    rows = {card["dataset"]: card for card in known.to_dict("records")}
    for name in tqdm([name for name in grid.datasets if name not in rows], unit="card"):
        data, train = akd.load_dataset(name), TrainConfig(**grid.train)
        rows[name] = akd.task_card(data, train=train, cache_root=cache, device="cpu").to_dict()
    return pd.DataFrame([rows[name] for name in grid.datasets])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs", help="folder of the two sweeps")
    parser.add_argument("--cache", default=".cache")
    chosen = parser.parse_args()
    for name, teacher in (("tasks", "zero-shot"), ("structure", "zero-shot+shuffled")):
        table = sweep.load(Path(chosen.runs, name))
        finished = table.groupby("run")["round"].transform("max") == table["rounds"]
        kept = whole_seeds(table[finished], teacher)
        runs, begun = kept["run"].nunique(), table["run"].nunique()
        print(f"{name}: {runs} of {begun} runs, {len(kept)} trainings")
        kept = kept.drop(columns=NOT_KEPT, errors="ignore")
        write_atomic(sweep.STUDY / f"{name}.parquet", kept.to_parquet(index=False))
    stored = sweep.STUDY / "cards.parquet"
    known = pd.read_parquet(stored) if stored.exists() else pd.DataFrame()
    table = cards(known, sweep.Grid.read(sweep.STUDY / "tasks.yaml"), chosen.cache)
    write_atomic(stored, table.to_parquet(index=False))


if __name__ == "__main__":
    main()
