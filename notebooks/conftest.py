"""Extend nbval: after each exercise's check, test its solution in the notebook's kernel."""

import inspect
import os

import pytest

from activekd_lite.course import handouts, notebooks

QUIET = {"store_history": False, "allow_stdin": False, "stop_on_error": False}


def solutions(notebook) -> list[dict]:
    """Return, per exercise, the name it asks for and the code of task, check and solution."""
    cells = notebook["cells"]
    tasks = [c["source"] for c in cells if "exercise" in c["metadata"].get("tags", [])]
    checks = [c["source"] for c in cells if "exercise-check" in c["metadata"].get("tags", [])]
    codes = [found["code"] for c in cells for found in handouts.SOLUTION.finditer(c["source"])]
    names = [notebooks.answer_name(task) for task in tasks]
    keys = ("name", "task", "check", "solution")
    exercises = zip(names, tasks, checks, codes, strict=False)
    return [dict(zip(keys, exercise, strict=True)) for exercise in exercises]


def spoiled(answer):
    """Return a wrong answer of the same type; the kernel runs this source, so it imports here."""
    import functools
    import numbers

    if callable(answer):
        # With the attributes of the answer, such as the needs of a strategy.
        return functools.wraps(answer)(lambda *args, **kwargs: spoiled(answer(*args, **kwargs)))
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
    """Test that the check accepts the solution of an exercise and rejects a spoiled answer."""

    def __init__(self, *, exercise: dict, **kwargs):
        super().__init__(**kwargs)
        self.exercise = exercise

    def runtest(self) -> None:
        name, check = self.exercise["name"], self.exercise["check"]
        try:
            result = self.execute(f"{self.exercise['solution']}\n{check}")
            assert result == "'right'", f"with its solution the checker of `{name}` says {result}"
            spoil = f"{inspect.getsource(spoiled)}\n{name} = spoiled({name})\n"
            result = self.execute(spoil + check)
            assert result != "'right'", f"the checker of `{name}` accepts a wrong answer"
        finally:
            # The following cells run with the exercise unsolved, as in the notebook itself.
            self.execute(self.exercise["task"])

    def execute(self, code: str) -> str:
        """Return the value of the last line, or the error."""
        results = []

        def collect(message):
            content = message["content"]
            if message["msg_type"] == "execute_result":
                results.append(content["data"]["text/plain"])
            elif message["msg_type"] == "error":
                results.append(f"{content['ename']}: {content['evalue']}")

        client = self.parent.kernel.kc
        client.execute_interactive(code, output_hook=collect, timeout=600, **QUIET)
        return results[-1] if results else "nothing"

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}::{self.name}"

    def repr_failure(self, excinfo):
        return str(excinfo.value)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list) -> None:
    """Insert a `Solution` after the check of each exercise."""
    cells = [item for item in items if hasattr(item, "cell_num")]
    for parent in dict.fromkeys(item.parent for item in cells):
        tags = {i: i.cell.metadata.get("tags", []) for i in cells if i.parent is parent}
        checks = [item for item in tags if "exercise-check" in tags[item]]
        pairs = zip(checks, solutions(parent.nb), strict=False)
        for number, (check, exercise) in enumerate(pairs, start=1):
            test = Solution.from_parent(parent, name=f"Solution {number}", exercise=exercise)
            items.insert(items.index(check) + 1, test)


def pytest_configure() -> None:
    # As when the outputs were made; otherwise each figure would contain plotly.js.
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")
