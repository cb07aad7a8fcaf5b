"""The journal on disk, and the Python side of the labeller: messages from and to the page."""

import base64
import dataclasses
import io
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from PIL import Image

import activekd_lite as akd
from activekd_lite.widgets import labeller as module
from activekd_lite.widgets.journal import Journal, PersonOracle, Stopped
from activekd_lite.widgets.labeller import Labeller, question_for
from activekd_lite.widgets.pictures import Pictures


@pytest.fixture
def journal(small, tmp_path):
    path = tmp_path / "answers.jsonl"
    opened = []

    def open_it(pool=small.pool):
        opened.append(Journal(path, pool))
        return opened[-1]

    open_it.path = path
    yield open_it
    for one in opened:
        one.close()


def test_answers_undo_and_skip_are_lines_on_disk_at_once(journal):
    book = journal()
    book.answer(5, 3, 1.5)
    assert (
        json.loads(journal.path.read_text().splitlines()[1])["label"] == "3"
    )  # before anything is closed
    book.skip(7, 0.5)
    book.answer(9, 4, 2.0)
    book.undo(5, 0.25)
    assert book.labels == {9: 4}
    book.answer(5, 8, 1.0)
    assert list(book.labels.items()) == [(9, 4), (5, 8)]
    assert book.seconds == 5.25
    assert book.seconds_until([9]) == 4.0
    assert book.seconds_until([9, 5]) == 5.25
    assert book.seconds_until([]) == 0
    with pytest.raises(ValueError, match="1 of 2 images have no answer .* first 7"):
        book.seconds_until([7, 9])
    book.close()
    again = journal()
    assert (again.labels, again.seconds, again.note) == (book.labels, book.seconds, "")
    assert [e["event"] for e in again.events] == ["answer", "skip", "answer", "undo", "answer"]


def test_every_append_is_flushed_to_the_disk_before_it_returns(journal, monkeypatch):
    synced = []
    book = journal()
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(journal.path.read_bytes()))
    book.answer(1, 2, 1)
    assert b'"index": 1' in synced[0]


def test_bad_events_are_refused_and_not_written(journal):
    book, before = journal(), journal.path.read_bytes()
    for call, said in [
        (lambda: book.answer(150, 0, 1), "index 150 is not one of the 150"),
        (lambda: book.answer(-1, 0, 1), "index -1"),
        (lambda: book.answer(0, 0, float("nan")), "seconds = nan"),
        (lambda: book.undo(3, 1), "image 3 has no answer"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
    assert journal.path.read_bytes() == before


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_said_and_costs_nothing_before_it(journal, cut, capsys):
    book = journal()
    book.answer(5, 3, 1.5)
    book.answer(6, 4, 1.5)
    book.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[: -1 - cut])
    book = journal()
    assert book.labels == {5: 3}
    assert "was cut off" in book.note
    assert "was cut off" in "".join(capsys.readouterr())
    book.answer(8, 1, 1)
    book.close()
    assert journal().labels == {5: 3, 8: 1}  # the cut line stays there, and is no damage


def test_a_line_that_lacks_only_its_end_counts(journal):
    book = journal()
    book.answer(5, 3, 1.5)
    book.close()
    journal.path.write_bytes(journal.path.read_bytes()[:-1])
    book = journal()
    assert (book.labels, book.note) == ({5: 3}, "")
    book.answer(6, 3, 1)
    book.close()
    assert journal().labels == {5: 3, 6: 3}


@pytest.mark.parametrize(
    "damage",
    [
        b"{nonsense",
        b'{"event": "answer", "index": 5}',
        b'{"event": "guess"}',
        b"[]",
        b'{"event": "answer", "index": 999, "label": "3", "seconds": 1}',
        b'{"event": "answer", "index": 9, "label": "ten", "seconds": 1}',
    ],
)
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(journal, damage):
    book = journal()
    for index in range(3):
        book.answer(index, 3, 1)
    book.close()
    lines = journal.path.read_bytes().split(b"\n")
    lines[2] = damage
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"line 3 of .*answers.jsonl is damaged"):
        journal()
    journal.path.write_bytes(journal.path.read_bytes().replace(damage + b"\n", b""))
    assert len(journal().labels) == 2  # the lock was let go


def test_another_pool_or_other_classes_are_refused_and_named(journal, small):
    journal().close()
    other = dataclasses.replace(small.pool, images=small.pool.images.flip(0))
    with pytest.raises(ValueError, match=r"the journal .* \(pool: .*choose another `out`"):
        journal(other)
    renamed = dataclasses.replace(small.pool, classnames=[*"abcdefghij"])
    with pytest.raises(ValueError, match="classnames:"):
        journal(renamed)
    journal.path.write_text("my notes")
    with pytest.raises(ValueError, match="line 1 of .* is damaged"):
        journal()


def test_a_full_disk_is_said_and_leaves_whole_lines(journal, full_disk):
    book = journal()
    book.answer(1, 1, 1)
    with full_disk(0), pytest.raises(OSError, match="No space left.*answer again"):
        book.answer(2, 1, 1)
    assert book.labels == {1: 1}
    book.answer(3, 1, 1)
    book.close()
    assert journal().labels == {1: 1, 3: 1}


OTHER = """import sys, activekd_lite as akd, torch
from activekd_lite.widgets.journal import Journal
pool = akd.Pool(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), ["a", "b"])
try:
    book = Journal(sys.argv[1], pool)
except RuntimeError as error:
    print(error)
else:
    book.answer(1, 1, 2.5)
    print("open", flush=True)
    input()
"""


@pytest.mark.slow
def test_one_process_at_a_time_and_a_killed_one_is_none(tmp_path):
    path, pool = (
        tmp_path / "answers.jsonl",
        akd.Pool(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), ["a", "b"]),
    )
    command = [sys.executable, "-c", OTHER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(
            RuntimeError, match=r"another process has .* open: shut down its kernel"
        ):
            Journal(path, pool)
        other.kill()
    book = Journal(path, pool)
    assert book.labels == {1: 1}
    newer = Journal(path, pool)  # in the same process: a cell that is run again
    with pytest.raises(Stopped, match="opened again"):
        book.answer(2, 0, 1)
    newer.answer(2, 0, 1)
    assert newer.labels == {1: 1, 2: 0}
    newer.close()


def test_the_oracle_waits_for_the_journal_and_asks_in_its_order(journal, small):
    book, got = journal(), []
    book.answer(4, 2, 1)
    oracle = PersonOracle(book)
    assert oracle.label(torch.tensor([4])).tolist() == [2]
    thread = threading.Thread(target=lambda: got.append(oracle.label(torch.tensor([4, 8, 3, 6]))))
    thread.start()
    until(lambda: oracle.asked)
    assert oracle.current == 8
    book.skip(8, 1)
    assert oracle.current == 3
    book.answer(3, 1, 1)
    assert (oracle.current, oracle.undoable) == (6, 3)
    book.undo(3, 1)
    assert (oracle.current, oracle.undoable) == (3, 4)
    for index in (3, 6):
        book.answer(index, 5, 1)
    assert oracle.current == 8  # skipped: at the end
    book.answer(8, 9, 1)
    thread.join(5)
    assert got[0].tolist() == [2, 9, 5, 5]
    assert oracle.unknown_count == 0
    with pytest.raises(ValueError, match="start with shots=0, a cold start"):
        oracle.initial_indices(1, torch.Generator())
    true = PersonOracle(book, small.oracle)
    start = true.initial_indices(1, torch.Generator().manual_seed(0))
    assert torch.equal(true.label(start), small.oracle.label(start))  # not asked for


def test_an_oracle_that_waits_can_be_stopped(journal):
    book, said = journal(), []

    def ask():
        try:
            PersonOracle(book).label(torch.tensor([1]))
        except Stopped as stopped:
            said.append(str(stopped))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.05)
    book.close("enough")
    thread.join(5)
    assert said == ["enough"]


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def hand(small, teacher, quick, tmp_path, monkeypatch):
    """Labellers as in JupyterLab, their pages driven by messages."""
    monkeypatch.setattr(module, "is_interactive", lambda: True)
    made = []

    def make(**settings):
        usual = dict(rounds=2, query_size=4, train=quick, out=tmp_path / "run", rivals=())
        settings = usual | settings
        made.append(Labeller(small, teacher, **settings))
        return made[-1]

    yield make
    for one in made:
        close(one)


def close(labeller):
    threads = [labeller._thread, labeller.rivals.thread]
    labeller.close()
    for thread in filter(None, threads):
        thread.join(60)


def asked(labeller):
    """The image on the page, once there is one; -1 at the end."""
    until(lambda: labeller.widget.view["index"] >= 0 or labeller._done or labeller._error)
    return labeller.widget.view["index"]


def send(labeller, kind, index=None, label=None, seconds=1.0):
    index = asked(labeller) if index is None else index
    labeller._on_message(
        labeller.widget, {"kind": kind, "index": index, "label": label, "seconds": seconds}, None
    )


def finish(labeller, label=1):
    while asked(labeller) >= 0:
        send(labeller, "answer", label=label)
        until(lambda: labeller.oracle.current is not None or not labeller.oracle.asked)
    until(lambda: labeller._done or labeller._error)


def test_a_whole_run_by_hand(hand, small, tmp_path):
    labeller = hand()
    assert not (tmp_path / "run").exists()  # nothing is begun before it is shown
    first = asked(labeller)
    shown = labeller.widget.view
    assert shown["title"] == "0 of 8 labelled, query 1 of 2."
    assert shown["image"].startswith("data:image/png")  # its pixels as they are
    assert (shown["feedback"], shown["undo"]) == (
        "",
        False,
    )  # no word of the teacher before the answer
    with pytest.raises(RuntimeError, match="8 of 8 labels are still missing"):
        labeller.result  # noqa: B018
    assert "8 of 8 labels are still missing" in labeller.figure().alt
    assert not labeller.done
    send(labeller, "answer", label=3, seconds=2.5)
    assert labeller.journal.labels == {first: 3}
    said, best = labeller.widget.view["feedback"], int(labeller.teacher.probs()[first].argmax())
    assert said.startswith("Your label: 3. The teacher ")
    assert ("agrees" if best == 3 else f"says {best}") in said
    assert "1 of 8 labelled" in labeller.widget.view["title"]
    assert "2.5 seconds per label" in labeller.widget.view["title"]
    second = asked(labeller)
    send(labeller, "answer", first, 4)  # a double press: about the image before
    assert (labeller.journal.labels, asked(labeller)) == ({first: 3}, second)
    send(labeller, "skip")
    assert asked(labeller) != second
    send(labeller, "undo")
    assert asked(labeller) == first
    assert labeller.journal.labels == {}
    send(labeller, "undo")  # nothing to undo
    finish(labeller)
    assert "Error" not in labeller._error
    assert labeller.done
    assert [len(r.query_indices) for r in labeller.records] == [4, 4, 0]
    assert (
        labeller.records[0].query_indices[1] == second
    )  # skipping changes the order of the answers only
    assert list(labeller.journal.labels)[3] == second
    assert labeller.widget.view["index"] == -1
    assert len(labeller.widget.view["rounds"]) == 3
    state = labeller.result.state
    assert {i: int(state.labels[i]) for i in labeller.journal.labels} == labeller.journal.labels
    assert (state.labels[state.labeled_round == 0].sort().values == torch.arange(10)).all()
    assert not (tmp_path / "run" / "true-labels").exists()


def test_bad_messages_change_nothing(hand):
    labeller = hand()
    index = asked(labeller)
    before = labeller.journal.path.read_bytes()
    answer = {"kind": "answer", "index": index}
    nowhere, unknown = (
        {"kind": "answer", "index": None, "label": 1},
        {"kind": "eat", "index": index},
    )
    for message in ({}, answer | {"label": 10}, answer | {"label": None}, nowhere, unknown):
        turn = labeller.widget.view["revision"]
        labeller._on_message(labeller.widget, message, None)
        assert labeller.widget.view["revision"] > turn  # the page hears of it and takes keys again
    assert labeller.journal.path.read_bytes() == before


def test_a_full_disk_is_shown_and_the_same_image_is_asked_again(hand, full_disk):
    labeller = hand()
    index = asked(labeller)
    with full_disk(0):
        send(labeller, "answer", label=1)
    assert "No space left" in labeller.widget.view["feedback"]
    assert asked(labeller) == index
    assert labeller.journal.labels == {}


def test_it_goes_on_where_it_stopped_and_ends_as_if_undisturbed(hand, tmp_path):
    labeller = hand()
    for _ in range(2):
        send(labeller, "answer", label=1)
    close(labeller)
    labeller = hand()  # in the first query
    asked(labeller)
    assert labeller.widget.view["title"].startswith("2 of 8 labelled, query 1 of 2.")
    for _ in range(3):
        send(labeller, "answer", label=1)
        until(lambda at=labeller: at.oracle.current is not None)
    close(labeller)
    labeller = hand()  # in the second
    asked(labeller)
    assert labeller.widget.view["title"].startswith("5 of 8 labelled, query 2 of 2.")
    assert len(labeller.records) == 1
    finish(labeller)
    undisturbed = hand(out=tmp_path / "other")
    finish(undisturbed)
    assert [r.outcome() for r in labeller.records] == [r.outcome() for r in undisturbed.records]
    again = hand()
    again.start()
    again._thread.join(30)
    assert again.done
    assert again.widget.view["title"].startswith("All 8 labels given")


def test_running_the_cell_again_takes_over(hand):
    first = hand()
    index = asked(first)
    send(first, "answer", label=1)
    second = hand()
    assert asked(second) != index
    until(lambda: first._error)
    assert "opened again" in first.widget.view["error"]
    send(first, "answer", asked(second), 1)
    assert second.journal.labels == {index: 1}


def test_running_the_cell_again_while_the_student_trains_waits_for_the_end_of_it(hand):
    busy, enough = threading.Event(), threading.Event()
    first = hand(on_round=lambda record: (busy.set(), enough.wait(60)))
    for _ in range(4):
        send(first, "answer", label=1)
        until(lambda: first.oracle.current is not None or not first.oracle.asked)
    assert busy.wait(60)
    second = hand()
    assert second.widget.view["busy"]
    assert len(second.records) == 1
    enough.set()
    finish(second)
    assert second.done, second._error
    assert not first.done or first.records == second.records


def test_a_cold_start_asks_for_the_first_images_too(hand, small):
    labeller = hand(shots=0, strategy="random", rounds=1, truth=False)
    asked(labeller)
    assert labeller.widget.view["title"] == "0 of 8 labelled, query 1 of 2."
    for _ in range(4):
        send(labeller, "answer", label=int(small.oracle.label(torch.tensor([asked(labeller)]))))
        until(lambda: labeller.oracle.current is not None)
    asked(labeller)
    assert labeller.widget.view["title"].startswith("4 of 8 labelled, query 2 of 2.")
    finish(labeller)
    assert labeller.done, labeller._error
    assert labeller.figure().alt.startswith("2 rows of images: query 1, 4; query 2, 4")
    assert labeller.accuracy_by_seconds().table["seconds"].tolist() == [4.0, 8.0]
    with pytest.raises(ValueError, match="true labels are not known"):
        labeller.against_truth()
    assert "true" not in labeller.answers


def test_an_error_of_the_run_is_shown(hand):
    def broken(predictions, state, query_size, *, generator):
        raise ZeroDivisionError("no choice")

    labeller = hand(strategy=broken)
    labeller.start()
    labeller._thread.join(60)
    assert "ZeroDivisionError: no choice" in labeller.widget.view["error"]


def test_another_run_in_the_folder_is_not_drawn_as_yours(hand, small, teacher, quick, tmp_path):
    settings = dict(rounds=2, query_size=4, train=quick, seed=7, progress=False)
    akd.run_active_learning(small, teacher, out=tmp_path / "run", **settings)
    labeller = hand()
    until(lambda: labeller.widget.view["error"])
    assert labeller.records == []
    assert labeller.widget.view["lines"] == []


def test_where_nobody_is_there_the_true_labels_answer(small, teacher, quick, tmp_path):
    out = tmp_path / "run"
    labeller = Labeller(
        small, teacher, rounds=2, query_size=4, train=quick, out=out, seconds_per_label=3
    )
    figure = labeller.figure()
    assert "assuming 3 seconds each" in figure.layout.title.text
    assert figure.table["row"].tolist() == ["query 1"] * 4 + ["query 2"] * 4
    plain = akd.run_active_learning(
        small, teacher, rounds=2, query_size=4, train=quick, progress=False
    )
    assert [r.outcome() for r in labeller.result.records] == [r.outcome() for r in plain.records]
    assert labeller.done
    curve = labeller.accuracy_by_seconds()
    assert curve.table["seconds"].tolist() == [0, 12, 24]
    assert curve.table["accuracy_pct"].tolist() == [r.accuracy_pct for r in plain.records]
    assert "0 of 8 labels differ" in labeller.against_truth().alt
    assert not (out / "answers.jsonl").exists()  # kept apart from a reader's own
    answers = labeller.answers
    assert answers["label"].tolist() == answers["true"].tolist()
    assert answers["teacher"].tolist() == [
        str(int(i)) for i in teacher.probs()[answers["index"].tolist()].argmax(dim=1)
    ]
    labeller.close()


def test_labels_against_the_true_ones(hand, small):
    labeller = hand()
    finish(labeller, label=1)
    answers = labeller.answers
    wrong = answers[answers["true"] != "1"]
    figure = labeller.against_truth()
    assert f"{len(wrong)} of 8 labels differ from the true ones" in figure.layout.title.text
    assert set(figure.table["index"]) == set(wrong["index"])
    assert set(figure.table["row"]) == {f"true: {name}" for name in wrong["true"]}


def test_settings_that_cannot_work_are_refused(small, teacher, tmp_path):
    unknown = dataclasses.replace(small, oracle=akd.Oracle(torch.full((150,), -1), 10))
    for data, settings, said in [
        (unknown, {}, "shots = 1, but there are no true labels"),
        (unknown, {"truth": True}, "truth = True, but 150 of 150"),
        (small, {"truth": False}, "shots = 1, but there are no true labels"),
        (small, {"rounds": 100}, "the pool has 150 images"),
    ]:
        with pytest.raises(ValueError, match=said):
            Labeller(data, teacher, out=tmp_path, **settings)
    with pytest.raises(RuntimeError, match="there are no true labels to use instead"):
        Labeller(unknown, teacher, shots=0, strategy="random", out=tmp_path).figure()


def test_closing_leaves_no_widget_and_no_thread(hand):
    before = set(_instances)
    for _ in range(3):
        labeller = hand()
        asked(labeller)
        thread = labeller._thread
        close(labeller)
        assert not thread.is_alive()
    assert set(_instances) == before
    asked(labeller)  # shown again, it goes on
    send(labeller, "answer", label=2)
    assert len(labeller.journal.labels) == 1


def test_the_question_suits_the_classes(small):
    def asked(names, *templates):
        pool = dataclasses.replace(small.pool, classnames=names)
        return question_for(dataclasses.replace(small, pool=pool, templates=templates))

    words = [f"word {i}" for i in range(10)]
    assert asked([str(i) for i in range(10)], "a photo of {}") == "Which digit is this?"
    assert asked([*"abcdefghij"], "a photo of {}") == "Which letter is this?"
    assert asked(words, "a photo of {}.", "a {}, a type of flower.").startswith(
        "Which type of flow"
    )
    assert asked(words, "a photo of {}.") == "Which class is this?"


def decoded(uri):
    """The pixels (3, H, W) of a data URI."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def test_a_small_image_is_shown_smoothed_too_and_a_large_one_once(small):
    both = Pictures(small.pool.images).large(3)
    pixels = decoded(both["image"])
    assert torch.equal(pixels, small.pool.images[3])
    smooth = decoded(both["smooth"]).float()
    assert smooth.shape == (3, 96, 96)
    step = (smooth[:, :, 1:] - smooth[:, :, :-1]).abs().max()
    assert step < (pixels[:, :, 1:].float() - pixels[:, :, :-1].float()).abs().max() / 2
    large = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    assert Pictures(large).large(0)["smooth"] == ""


@pytest.mark.slow
def test_rivals_are_plain_runs_with_the_true_labels(hand, small, teacher, quick, tmp_path):
    labeller = hand(rivals=None)
    finish(labeller, label=1)
    until(lambda: not labeller.rivals.thread.is_alive())
    assert set(labeller.rivals.records) == {"pcoreset", "random"}
    for name, records in labeller.rivals.records.items():
        settings = dict(rounds=2, query_size=4, train=quick, strategy=name, progress=False)
        plain = akd.run_active_learning(small, teacher, **settings)
        assert [r.outcome() for r in records] == [r.outcome() for r in plain.records]
    lines = {line["name"]: line for line in labeller.widget.view["lines"]}
    assert [line["xs"] for line in lines.values()] == [[10, 14, 18]] * 3
    assert lines["you"]["ys"][0] == lines["random"]["ys"][0]  # the same start
    assert labeller.widget.view["status"] == ""
    table = labeller.standings
    assert table["run"].tolist() == ["you", "pcoreset", "random"]
    assert table["labels"].tolist() == [18] * 3
    assert table["gained_per_minute"][1] == pytest.approx(table["gained_pct"][1] * 60 / 8)
    assert "pcoreset" in labeller.figure().alt
    again, trained = hand(rivals=None), []
    again.settings["on_round"] = trained.append
    again.start()
    until(lambda: not again.rivals.thread.is_alive())
    assert [len(r) for r in again.rivals.records.values()] == [3, 3]
    assert not trained  # they were on disk


def test_rivals_wait_for_the_persons_student_and_stop_with_the_labeller(hand):
    labeller = hand(rivals=("random",))
    ready = threading.Event()
    labeller.rivals.may_train = ready.is_set
    asked(labeller)
    assert labeller.rivals.records == {"random": []}
    assert "random 0 of 3" in labeller.widget.view["status"]
    ready.set()
    until(lambda: labeller.rivals.records["random"])
    ready.clear()
    count = len(labeller.rivals.records["random"])
    drawn = lambda: {line["name"]: line["xs"] for line in labeller.widget.view["lines"]}  # noqa: E731
    until(lambda: drawn() == {"you": [10], "random": [10]})  # no further than the person is
    close(labeller)
    assert not labeller.rivals.thread.is_alive()
    left = len(module.finished_rounds(labeller.rivals.folders["random"]))
    assert count <= left <= count + 1
    ready.set()
    asked(labeller)  # displayed again, they go on
    until(lambda: len(labeller.rivals.records["random"]) == 3)


def test_a_rival_that_is_trained_at_the_end_writes_nothing_more(small, teacher, quick, tmp_path):
    settings = dict(rounds=1, query_size=4, shots=1, seed=0, train=quick)
    rivals = module.Rivals(small, teacher, ["random"], settings, tmp_path)
    stop = threading.Event()
    stop.set()  # as if during the training
    assert not rivals._train_round("random", stop)
    assert not [*tmp_path.rglob("rounds.jsonl"), *tmp_path.rglob("*.safetensors")]
    assert rivals.records == {"random": []}


def test_messages_that_mean_nothing_change_nothing(hand):
    labeller = hand()
    index = asked(labeller)
    for message in ("text", None, [1], {}, {"kind": ["answer"]}):
        labeller._on_message(labeller.widget, message, [])
    for label in (True, "1", 99, None):
        send(labeller, "answer", label=label)
    assert labeller.journal.events == []
    assert labeller.oracle.current == index


def test_a_rival_that_fails_is_named_and_the_person_goes_on(hand, tmp_path):
    (tmp_path / "run" / "rivals" / "random").mkdir(parents=True)
    (tmp_path / "run" / "rivals" / "random" / "rounds.jsonl").write_text("damaged\n")
    labeller = hand(rivals=("random",))
    asked(labeller)
    until(lambda: labeller.rivals.note)
    until(lambda: "random with true labels: ValueError" in labeller.widget.view["status"])
    send(labeller, "answer", label=1)
    assert len(labeller.journal.labels) == 1


def test_rivals_need_true_labels_and_settings_they_can_run_with(small, teacher, tmp_path):
    def rivals(**settings):
        return set(Labeller(small, teacher, out=tmp_path, **settings).rivals.folders)

    assert rivals() == set()  # no person here
    assert rivals(rivals=("margin", "random", "margin")) == {"margin", "random"}
    cold = dict(shots=0, strategy="random")
    for settings, said in [
        (cold | {"truth": False, "rivals": ("random",)}, "need true labels"),
        (cold | {"rivals": ("pcoreset",)}, "starts from labelled images"),
        ({"rivals": "random"}, "give a sequence"),
        ({"rivals": ("randm",)}, "randm"),
    ]:
        with pytest.raises(ValueError, match=said):
            rivals(**settings)


def test_where_nobody_is_there_rivals_run_if_they_are_asked_for(small, teacher, quick, tmp_path):
    settings = dict(rounds=1, query_size=4, train=quick, out=tmp_path / "run")
    labeller = Labeller(small, teacher, rivals=("random",), **settings)
    assert labeller.standings["run"].tolist() == ["true labels", "random"]
    assert "random" in labeller.figure().alt
    labeller.close()


def test_the_end_of_the_game(hand, teacher, small):
    labeller = hand()
    assert labeller.widget.view["summary"] is None
    finish(labeller, label=1)
    until(lambda: labeller.widget.view["summary"])
    given, summary = labeller.answers, labeller.widget.view["summary"]
    wrong = given[given["true"] != "1"]
    found = [i["index"] for pair in summary["confusions"] for i in pair["tiles"]]
    assert set(found) == set(wrong["index"])
    assert {pair["label"] for pair in summary["confusions"]} == {"1"}
    corrected = given[(given["label"] == given["true"]) & (given["teacher"] != given["true"])]
    assert {t["index"] for t in summary["teacher"]["corrected"]} == set(corrected["index"])
    missed = given[(given["label"] != given["true"]) & (given["teacher"] == given["true"])]
    assert {t["index"] for t in summary["teacher"]["missed"]} == set(missed["index"])
    (person,) = summary["standings"]
    gained = labeller.records[-1].accuracy_pct - labeller.records[0].accuracy_pct
    assert person["gained_pct"] == pytest.approx(gained, abs=0.06)
    assert person["gained_per_minute"] == pytest.approx(gained * 60 / 8, abs=0.06)  # 8 seconds
    twin = labeller.figure()
    for sentence in summary["words"].values():
        assert sentence in twin.alt
    assert twin.table["true"].tolist() == given["true"].tolist()


def test_without_true_labels_the_end_names_only_disagreement(hand):
    labeller = hand(shots=0, strategy="random", rounds=1, truth=False, rivals=None)
    finish(labeller)
    until(lambda: labeller.widget.view["summary"])
    summary, given = labeller.widget.view["summary"], labeller.answers
    assert summary["confusions"] == []
    assert set(summary["teacher"]) == {"open"}
    differ = given[given["label"] != given["teacher"]]["index"]
    assert {tile["index"] for tile in summary["teacher"]["open"]} == set(differ)
    assert "labels" not in summary["words"]
    assert not labeller.rivals.folders


def test_the_twin_of_a_closed_labeller_leaves_the_journal_to_the_next(hand):
    class Handle:  # as IPython's
        shown = ""

        def update(self, bundle, raw):
            self.shown = bundle["text/plain"]

    first = hand()
    first._twin = Handle()
    send(first, "answer", label=1)
    second = hand()
    asked(second)
    until(lambda: first._error and "opened again" in first.widget.view["error"])
    first._thread.join(60)
    assert "query 1, 1" in first._twin.shown
    assert not second.journal.closed
    send(second, "answer", asked(second), 1)
    assert len(second.journal.labels) == 2


def test_many_quick_answers_are_all_recorded_while_rivals_train(hand):
    labeller = hand(rivals=("random",), query_size=20, rounds=1)
    asked(labeller)
    until(lambda: labeller.rivals.thread.is_alive())
    for _ in range(19):
        send(labeller, "answer", label=1)
    assert len(labeller.journal.labels) == 19


def test_the_newest_student_is_shown_before_its_query_is_answered(hand):
    labeller = hand()
    asked(labeller)
    (line,) = labeller.widget.view["lines"]
    assert (line["xs"], labeller.records) == ([10], [])
    shown = line["ys"][0]
    for _ in range(4):
        send(labeller, "answer", label=1)
    until(lambda: labeller.oracle.current is not None and labeller.records)
    assert shown == round(labeller.records[0].accuracy_pct, 2)
    asked(labeller)
    until(lambda: labeller.widget.view["lines"][0]["xs"] == [10, 14])
    assert [row["labels"] for row in labeller.widget.view["rounds"]] == [0, 4]
