"""Beside nbval: each exercise's solution is tried in the kernel that has run the notebook so far."""

import inspect
import os
import re

import pytest

from activekd_lite.course import notebooks


def solutions(notebook) -> list[dict]:
    """For each exercise: the name it asks for, the checker's code and the solution's."""
    tagged = {
        tag: [
            cell["source"] for cell in notebook["cells"] if tag in cell["metadata"].get("tags", [])
        ]
        for tag in ("exercise", "exercise-check")
    }
    folded = [
        c["source"] for c in notebook["cells"] if "<summary>Solution</summary>" in c["source"]
    ]
    code = [block for text in folded for block in re.findall(r"```python\n(.*?)```", text, re.S)]
    return [
        {
            "name": next(iter(notebooks.assigned(task)), "answer"),
            "task": task,
            "check": check,
            "solution": solution,
        }
        for task, check, solution in zip(
            tagged["exercise"], tagged["exercise-check"], code, strict=False
        )
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
            self.say(
                self.exercise["task"]
            )  # as a reader who has not solved it: what follows is nbval's

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
            code,
            store_history=False,
            allow_stdin=False,
            output_hook=hear,
            stop_on_error=False,
            timeout=600,
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
        checks = [
            item
            for item in items
            if item.parent is parent and "exercise-check" in item.cell.metadata.get("tags", [])
        ]
        for number, (check, exercise) in enumerate(
            zip(checks, solutions(parent.nb), strict=False), start=1
        ):
            test = Solution.from_parent(parent, name=f"Solution {number}", exercise=exercise)
            items.insert(items.index(check) + 1, test)


def pytest_configure() -> None:
    os.environ.setdefault(
        "PLOTLY_RENDERER", "plotly_mimetype"
    )  # as when the outputs were made: no plotly.js in each figure
