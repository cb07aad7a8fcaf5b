"""`activekd-lite report`, and the summary that `sweep` prints."""

from pathlib import Path

import pandas as pd

from activekd_lite.analysis import statistics
from activekd_lite.experiments import sweep
from activekd_lite.plots import report


def command(runs: str, /, *, out: str | None = None) -> int:
    """Summarize finished runs.

    Parameters
    ----------
    runs
        Folder of finished runs, of `sweep --out` or of several `run --out`.
    out
        File of the page. Default: report.html in that folder.
    """
    return write_report(sweep.load(runs), Path(runs), out)


def write_report(results: pd.DataFrame, folder: Path, page: str | Path | None = None) -> int:
    """Print the summary and write the page. Return 1 if a run has failed."""
    failed = {run: reason.splitlines()[0] for run, reason in sweep.failures(folder).items()}
    page = page or (folder if folder.is_dir() else folder.parent) / "report.html"
    report.write(results, page, teacher_accuracy_pct=sweep.teachers(folder), failed=failed)
    print("\nmean test accuracy over the rounds (AULC, %), ± 95 % interval over the seeds\n")
    print(statistics.summary(results).to_string(index=False))
    print(f"\n{results['run'].nunique()} runs; figures and significance tests are in {page}")
    return print_failures(folder)


def print_failures(folder: Path) -> int:
    """Print a line for each run that has failed. Return 1 if there is one."""
    failed = sweep.failures(folder)
    for run, reason in failed.items():
        print(f"FAILED {run}: {reason.splitlines()[0]}")
    return 1 if failed else 0
