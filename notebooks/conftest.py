"""What nbval does not do by itself: try each exercise's solution in the kernel that has run the notebook so far, and keep the
table of measured time and memory true. Both cost next to nothing, since the notebooks run anyway."""

import inspect
import os
import re
from pathlib import Path

import nbformat
import pytest
import torch

from activekd_lite import notebooks

TABLE = Path(__file__).with_name("README.md")
MEASURED = pytest.StashKey[dict]()
MOVED = 0.25  # how far time or memory may be from the table before its row is written anew


def solutions(notebook) -> list[dict]:
    """For each exercise: the name it asks for, the checker's code and the solution's."""
    tagged = {
        tag: [cell["source"] for cell in notebook["cells"] if tag in cell["metadata"].get("tags", [])]
        for tag in ("exercise", "exercise-check")
    }
    folded = [c["source"] for c in notebook["cells"] if "<summary>Solution</summary>" in c["source"]]
    code = [block for text in folded for block in re.findall(r"```python\n(.*?)```", text, re.S)]
    return [
        {"name": next(iter(notebooks.assigned(task)), "answer"), "task": task, "check": check, "solution": solution}
        for task, check, solution in zip(tagged["exercise"], tagged["exercise-check"], code, strict=False)
    ]


def spoiled(answer):
    """A wrong answer of the same kind."""
    import numbers

    if callable(answer):
        return lambda *args, **kwargs: spoiled(answer(*args, **kwargs))
    if answer is None or isinstance(answer, str):
        return f"not {answer}"
    if isinstance(answer, bool):
        return not answer
    if isinstance(answer, numbers.Number):
        return answer + 1 + abs(answer)
    if isinstance(answer, dict):
        return {key: spoiled(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple | set):
        return type(answer)(spoiled(value) for value in answer)
    if hasattr(answer, "dtype"):
        return ~answer if "bool" in str(answer.dtype) else -1 - answer
    return object()


class Solution(pytest.Item):
    """Its solution makes the checker say "right", a spoiled one does not."""

    def __init__(self, *, exercise: dict, **kwargs):
        super().__init__(**kwargs)
        self.exercise = exercise

    def runtest(self) -> None:
        name, check = self.exercise["name"], self.exercise["check"]
        try:
            said = self.say(f"{self.exercise['solution']}\n{check}")
            assert said == "'right'", f"with its solution the checker of `{name}` says {said}"
            said = self.say(f"{inspect.getsource(spoiled)}\n{name} = spoiled({name})\n{check}")
            assert said != "'right'", f"the checker of `{name}` takes a wrong answer for right"
        finally:
            self.say(self.exercise["task"])  # as a reader who has not solved it: what follows is nbval's

    def say(self, code: str) -> str:
        """The value of the last line, or the error."""
        kernel, said = self.parent.kernel, []

        def hear(message):
            content = message["content"]
            if message["msg_type"] == "execute_result":
                said.append(content["data"]["text/plain"])
            elif message["msg_type"] == "error":
                said.append(f"{content['ename']}: {content['evalue']}")

        kernel.kc.execute_interactive(
            code, store_history=False, allow_stdin=False, output_hook=hear, stop_on_error=False, timeout=600
        )
        return said[-1] if said else "nothing"

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}::{self.name}"

    def repr_failure(self, excinfo):
        return str(excinfo.value)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list) -> None:
    """A `Solution` goes after the checker of each exercise."""
    for parent in dict.fromkeys(item.parent for item in items if hasattr(item, "cell_num")):
        checks = [item for item in items if item.parent is parent and "exercise-check" in item.cell.metadata.get("tags", [])]
        for number, (check, exercise) in enumerate(zip(checks, solutions(parent.nb), strict=False), start=1):
            test = Solution.from_parent(parent, name=f"Solution {number}", exercise=exercise)
            items.insert(items.index(check) + 1, test)


def pytest_configure(config) -> None:
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")  # as when the outputs were made: no plotly.js in each figure
    config.stash[MEASURED] = {}


def pytest_runtest_setup(item) -> None:
    if getattr(item, "cell_num", None) == 0:
        runs = notebooks.parameters_of(item.parent.nb).get("out")
        fresh = runs is not None and not (item.path.parent / runs).exists()
        item.config.stash[MEASURED][item.path] = {"fresh": fresh, "seconds": 0.0, "memory": 0, "passed": 0}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    of = item.config.stash[MEASURED].get(item.path) if hasattr(item, "cell_num") and call.when == "call" else None
    if of:
        of["seconds"] += call.duration
        of["passed"] += report.passed
        if getattr(item.parent.kernel, "km", None):
            of["memory"] = max(of["memory"], notebooks.peak_memory_bytes(item.parent.kernel.km.provisioner.pid))
    return report


def pytest_sessionfinish(session) -> None:
    """Rows of notebooks that ran whole, from nothing, on a machine such as the table speaks of."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not TABLE.is_file() or cores != 2 or torch.cuda.is_available():
        return
    for path, of in session.config.stash[MEASURED].items():
        notebook = nbformat.read(path, 4)
        if of["fresh"] and of["passed"] == sum(cell.cell_type == "code" for cell in notebook.cells):
            outcome = notebooks.Outcome(path.stem, notebooks.title(notebook), of["seconds"], of["memory"])
            if moved(outcome, TABLE.read_text(encoding="utf-8")):
                notebooks.update_table(TABLE, [outcome], path.parent)


def moved(outcome, table: str) -> bool:
    row = next((line for line in table.splitlines() if line.startswith(f"| [{outcome.name}]")), "")
    written = notebooks.read_measured(row)
    now = (outcome.seconds, outcome.peak_memory_bytes)
    return written is None or any(abs(new / old - 1) > MOVED for new, old in zip(now, written, strict=True))
