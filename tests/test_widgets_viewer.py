"""RunViewer: a run as it happens."""

import dataclasses

import ipywidgets
import pytest
import torch

import activekd_lite as akd
from activekd_lite.widgets import viewer as module
from activekd_lite.widgets.viewer import RunViewer

SETTINGS = dict(rounds=2, query_size=4, device="cpu")


@pytest.fixture
def shown(monkeypatch):
    """Displayed objects; `live`: whether the session is interactive; `updates`: of the twin."""

    class Shown(list):
        live = True

        def __init__(self):
            self.updates = []

        def update(self, bundle, raw):  # as IPython's handle
            self.updates.append(bundle)

    shown = Shown()
    monkeypatch.setattr(
        "IPython.display.display", lambda bundle, **_: shown.append(bundle) or shown
    )
    monkeypatch.setattr(module, "display", shown.append)
    monkeypatch.setattr(module, "is_interactive", lambda: shown.live)
    return shown


@pytest.fixture
def viewer(small):
    viewer = RunViewer(small, teacher_accuracy_pct=70.0)
    yield viewer
    viewer.close()


def test_a_run_is_watched_round_by_round(viewer, teacher, quick, shown):
    seen, draw = [], viewer._draw
    assert viewer.widget
    viewer._draw = lambda status: (
        draw(status),
        seen.append((status, len(viewer.widget.view["queries"]))),
    )
    result = viewer.run(teacher, train=quick, **SETTINGS)
    view, _, twin = shown
    assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == viewer.widget.model_id
    assert "Round 0" in twin["text/plain"]
    assert shown.updates[-1]["text/plain"] == viewer.figure().alt, (
        "a saved notebook shows the run as it ended"
    )
    said = [status.split(":")[0].split(";")[0] for status, _ in seen]
    running = ["Round 1 of 2 is running on 14 labels", "Round 2 of 2 is running on 18 labels"]
    assert said == ["Round 0 of 2 is running", *running, "Finished", "Finished"]
    assert [pictures for _, pictures in seen] == [0, 1, 2, 2, 2]
    view = viewer.widget.view
    (curve,) = view["lines"]
    assert curve["xs"] == [r.labeled_count for r in result.records] == [10, 14, 18]
    assert curve["ys"] == [round(r.accuracy_pct, 2) for r in result.records]
    train = [name for name, _ in view["stages"]].index("train")
    seconds = [row["seconds"][train] for row in view["rounds"]]
    assert seconds == pytest.approx([r.seconds["train"] for r in result.records], abs=1e-3)
    newest = view["queries"][0]
    assert [tile["index"] for tile in newest["tiles"]] == result.records[1].query_indices
    assert all(tile["src"].startswith("data:image/") for tile in newest["tiles"])
    assert newest["round"] == 1
    assert viewer.result is result


def test_watching_changes_nothing(viewer, small, teacher, quick, shown):
    watched = viewer.run(teacher, train=quick, **SETTINGS)
    alone = akd.run_active_learning(small, teacher, train=quick, progress=False, **SETTINGS)
    assert [r.outcome() for r in watched.records] == [r.outcome() for r in alone.records]


def test_labels_shown_are_the_oracles(viewer, small, teacher, quick, shown):
    result = viewer.run(teacher, train=quick, **SETTINGS)
    query = result.records[0].query_indices
    names = [small.classnames[c] for c in result.state.labels[query].tolist()]
    assert viewer.table()["query"][0] == ", ".join(names)


def test_headless_it_shows_a_figure_once_and_builds_no_widget(viewer, teacher, quick, shown):
    shown.live = False
    viewer.run(teacher, train=quick, **SETTINGS)
    assert len(shown) == 1
    assert isinstance(shown[0], akd.plots.Figure)
    assert viewer._widget is None
    assert "Finished: 18 labels" in shown[0].alt
    assert "Teacher alone: 70.0 %" in shown[0].alt
    assert list(shown[0].table["labels"]) == [10, 14, 18]


def test_finished_rounds_are_there_from_the_start(viewer, small, teacher, quick, shown, tmp_path):
    def stop_after_one(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        akd.run_active_learning(
            small,
            teacher,
            train=quick,
            out=tmp_path,
            on_round=stop_after_one,
            progress=False,
            **SETTINGS,
        )
    begun = []
    draw = viewer._draw
    viewer._draw = lambda status: (begun.append(len(viewer.records)), draw(status))
    result = viewer.run(teacher, train=quick, out=tmp_path, **SETTINGS)
    assert begun == [1, 2, 3, 3]
    assert viewer.records == result.records
    again = RunViewer(small)
    again.run(teacher, train=quick, out=tmp_path, **SETTINGS)
    assert [r.round for r in again.records] == [0, 1, 2]
    again.close()


def test_an_interrupt_leaves_what_there_is(viewer, teacher, quick, shown, monkeypatch):
    true = RunViewer.__call__

    def interrupted(self, record):
        true(self, record)
        if record.round == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunViewer, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        viewer.run(teacher, train=quick, **SETTINGS)
    assert viewer.status == "Interrupted after 2 complete rounds."
    assert viewer.widget.view["lines"][0]["xs"] == [10, 14]
    assert viewer.widget.view["progress"] == ""
    assert viewer.result is None
    with pytest.raises(ValueError, match="rounds = -1"):
        viewer.run(teacher, train=quick, **(SETTINGS | {"rounds": -1}))
    assert "Stopped by an error (ValueError)" in viewer.widget.view["status"]


def test_by_hand_and_afterwards(viewer, small, teacher, quick):
    assert viewer.widget
    result = akd.run_active_learning(
        small, teacher, train=quick, on_round=viewer, progress=False, **SETTINGS
    )
    assert viewer.status.startswith("Finished")
    assert len(viewer.widget.view["queries"]) == 2
    other = RunViewer(small)
    assert "No round yet" in other.figure().alt
    other.show(result)
    assert list(other.figure().data[0].x) == [10, 14, 18]


def test_closing_leaves_no_widget(viewer, teacher, quick, shown):
    before = set(ipywidgets.widgets.widget._instances)
    viewer.run(teacher, train=quick, **SETTINGS)
    viewer.run(teacher, train=quick, **SETTINGS)  # its pictures take the place of the first run's
    viewer.close()
    assert set(ipywidgets.widgets.widget._instances) == before


def test_the_teachers_line_needs_no_argument(small, teacher, vlm, quick, shown, tmp_path):
    shown.live = False
    settings = SETTINGS | dict(rounds=1, train=quick)
    alone = akd.metrics.accuracy_pct
    pool = alone(teacher.probs(), small.oracle.label(torch.arange(150)))
    viewer = RunViewer(small)
    viewer.run(teacher, **settings)
    assert f"Teacher on pool alone: {pool:.1f} %" in viewer.figure().alt
    cache = akd.TeacherCache.build_test(vlm, small, root=tmp_path, progress=False)
    tested = akd.ZeroShotTeacher(teacher.cache, teacher.text_weights, test=cache)
    viewer.run(tested, **settings)
    (rule,) = viewer._state()["rules"]
    assert rule["y"] == pytest.approx(alone(tested.test_probs(), small.test.labels), abs=0.01)
    again = RunViewer(small)
    again.show(viewer.result)  # the records tell it
    assert again._state()["rules"] == [rule]
    viewer.run(None, **settings)
    assert viewer._state()["rules"] == []


def test_a_teacher_that_learns_has_a_line_of_its_own(small, quick, shown):
    shown.live = False
    labels = small.oracle.label(torch.arange(150))

    def refit(state):  # right on the labelled images, and more and more on the test set
        known = len(state.labeled_indices)
        test = torch.nn.functional.one_hot(small.test.labels, 10).float()
        test[known:] = 0
        return torch.nn.functional.one_hot(labels, 10).float(), test

    start = refit(akd.LabelState.empty(150))
    teacher = akd.teacher.from_logits(start[0], refit=refit, test=start[1])
    viewer = RunViewer(small)
    result = viewer.run(teacher, train=quick, **SETTINGS)
    student, line = viewer._state()["lines"]
    assert line["ys"] == [round(r.teacher_accuracy_pct, 2) for r in result.records]
    assert len(set(line["ys"])) == 3
    assert (line["xs"], viewer._state()["rules"]) == (student["xs"], [])


def test_a_persons_oracle_is_not_asked_for_the_teachers_line(small, teacher, quick, shown):
    class Counting(akd.Oracle):
        asked = 0

        def label(self, indices):
            Counting.asked += len(indices)
            return super().label(indices)

    shown.live = False
    oracle = Counting(small.oracle.label(torch.arange(150)), 10)
    viewer = RunViewer(dataclasses.replace(small, oracle=oracle))
    viewer.run(teacher, train=quick, **SETTINGS)
    assert viewer._state()["rules"] == []
    assert Counting.asked < 150
