"""The paper's figures on the embedded data: the table behind docs/paper-figures.md, and a page.

    activekd-lite sweep data/study/paper-figures.yaml --out runs/paper-figures --workers 1
    python benchmarks/paper_figures.py                  # of the runs that are finished
    python docs/make_tables.py                          # writes the numbers into the text

Adds to the table of the sweep what the labels of each round are worth to a few-shot teacher (CLAP
fitted to them), and writes it to data/study/paper-figures.parquet. The page,
runs/paper-figures.html, has the report's figures, and for each data set the heat maps of fig. 9
and the images of fig. 10 for the first queries after the same student.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

import activekd_lite as akd
from activekd_lite.analysis import metrics, statistics
from activekd_lite.experiments import sweep
from activekd_lite.experiments.config import RunConfig
from activekd_lite.plots import comparisons
from activekd_lite.plots.base import html_of, render
from activekd_lite.plots.runs import image_rows, selected_probabilities
from activekd_lite.runs.folder import RunFolder
from activekd_lite.strategies import PAPER_STRATEGIES
from activekd_lite.utils.files import write_atomic
from activekd_lite.utils.seeding import generator

CURVES = ("nearest_neighbor_loss_pct", "cluster_purity_pct", "few_shot_accuracy_pct")
NOT_KEPT = ["peak_memory_bytes", "device"]


def few_shot_table(table: pd.DataFrame, runs: Path, cache: str) -> pd.DataFrame:
    """Add the column few_shot_accuracy_pct to the table of a sweep, by fitting CLAP each round."""
    values = pd.Series(index=table.index, dtype=float)
    for name, of_data in table.groupby("dataset"):
        inputs = RunConfig(name, teacher="clap").load(cache_root=cache, progress=False)
        labels = inputs.data.test.labels
        for run, rows in of_data.groupby("run"):
            state, seed = RunFolder(runs / run).read()[2], int(rows["seed"].iloc[0])
            found = metrics.few_shot_accuracies_pct(inputs.teacher, state, labels, seed=seed)
            by_round = dict(zip(rows["round"], rows.index, strict=True))
            for round, accuracy in enumerate(found[: len(rows)]):
                values[by_round[round]] = accuracy
    return table.assign(few_shot_accuracy_pct=values)


def first_queries(name: str, cache: str) -> list:
    """Return the heat maps and the images of the first queries of a data set, seed 0."""
    config = RunConfig(name, rounds=0)
    inputs = config.load(cache_root=cache, progress=False)
    result = config.run(inputs=inputs, progress=False, device="cpu")
    data, size = inputs.data, inputs.data.pool.num_classes
    seen = replace(result.predict(data.pool.images), teacher_probs=inputs.teacher.probs())
    rows = {"labelled": result.state.labeled_indices}
    for strategy in (*PAPER_STRATEGIES, "pcoreset_reversed"):
        draw = generator(0, "selection", 0)
        choose = akd.STRATEGIES[strategy]
        rows[strategy] = choose(seen, result.state, size, generator=draw)
    names = [data.classnames[c] for c in data.oracle.label(torch.arange(len(data.pool)))]
    title = f"{name}: the first query of each strategy"
    heat = selected_probabilities(rows, seen.probs, data.classnames, title=title)
    return [heat, image_rows(rows, data.pool.images, names, title=title)]


def page(table: pd.DataFrame, cache: str) -> str:
    """Return the page with all figures, as HTML."""
    figures = []
    for name, part in statistics.settings(table).items():
        curves = [value for value in CURVES if statistics.recorded(part, value)]
        figures += [comparisons.learning_curves(part, value=value) for value in curves]
        figures += [comparisons.diagnostics(part, title=f"{name}: what the strategies ask for")]
        figures += first_queries(part["dataset"].iloc[0], cache)
    parts = "\n".join(html_of(figure) for figure in figures)
    return render("page.html", title="The paper's figures, here", figure=parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs/paper-figures", help="folder of the sweep")
    parser.add_argument("--cache", default=".cache")
    parser.add_argument("--table", default=str(sweep.STUDY / "paper-figures.parquet"))
    parser.add_argument("--no-page", action="store_true", help="write the table only")
    asked = parser.parse_args()
    table = sweep.load(asked.runs)
    whole = table.groupby("run")["round"].transform("size") == table["rounds"] + 1
    table = few_shot_table(table[whole].reset_index(drop=True), Path(asked.runs), asked.cache)
    kept = table.drop(columns=NOT_KEPT).to_parquet(index=False, compression="zstd")
    write_atomic(Path(asked.table), kept)
    print(f"{table['run'].nunique()} runs, {len(kept):,} bytes: {asked.table}")
    if not asked.no_page:
        write_atomic(Path("runs/paper-figures.html"), page(table, asked.cache))
        print("figures: runs/paper-figures.html")


if __name__ == "__main__":
    main()
