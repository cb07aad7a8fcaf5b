from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import activekd_lite as akd


@pytest.fixture(scope="module")
def clap(vlm, small, teacher):
    return akd.ClapTeacher(
        teacher.cache, vlm.text_weights(small.classnames, small.templates, "raw", unit=False)
    )


@pytest.fixture(scope="module")
def state(small):
    """60 labels: 40 of round 0, 20 of round 1."""
    empty = akd.LabelState.empty(150)
    first = empty.with_labels(torch.arange(40), small.oracle.label(torch.arange(40)), 0)
    return first.with_labels(torch.arange(40, 60), small.oracle.label(torch.arange(40, 60)), 1)


def accuracy(teacher, data, index):
    return akd.metrics.accuracy_pct(teacher.probs()[index], data.oracle.label(index))


class TestClap:
    def test_before_fitting_clap_is_the_zero_shot_teacher(self, clap, vlm, small, teacher):
        weights = vlm.text_weights(small.classnames, small.templates, "raw")
        torch.testing.assert_close(
            clap.probs(), akd.ZeroShotTeacher(teacher.cache, weights).probs()
        )
        assert torch.equal(clap.fitted(akd.LabelState.empty(150), 0).probs(), clap.probs())

    def test_clap_minimises_the_objective_of_the_paper(self, clap, state):
        """Five whole-batch passes equal gradient descent on the paper's objective in float64."""
        views = replace(clap.cache.views, count=1)
        one_view = replace(clap.cache, features=clap.cache.features[:1], views=views)
        config = akd.ClapConfig(passes=5, lr=0.5, momentum=0.9, warmup=0.4, constraint=1.0)
        found = akd.ClapTeacher(one_view, clap.start, config=config).fitted(state, 0).prototypes
        index = state.labeled_indices
        y, f, s = state.labels[index], clap.cache.features[0, index].double(), clap.logit_scale
        start = clap.start.double()
        right = (s * f @ F.normalize(start, dim=0)).softmax(dim=1)[torch.arange(len(y)), y]
        zero = torch.tensor(0.0)
        held = torch.stack([right[y == c].mean() if (y == c).any() else zero for c in range(10)])
        p, velocity = start.clone(), torch.zeros_like(start)
        for factor in (0.5, 1.0, 1.0, 2 / 3, 1 / 3):  # two steps of warm-up, then down to 0
            p.requires_grad_()
            loss = F.cross_entropy(s * f @ F.normalize(p, dim=0), y)
            loss = loss + (held * ((p - start) ** 2).sum(dim=0)).mean()
            (gradient,) = torch.autograd.grad(loss, p)
            velocity = 0.9 * velocity + gradient
            p = (p - 0.5 * factor * velocity).detach()
        torch.testing.assert_close(found.double(), p, rtol=1e-3, atol=1e-4)
        assert (found - clap.start).abs().max() > 1e-2

    @pytest.mark.slow
    def test_labels_improve_clap_on_other_images(self, vlm, digits, shared_cache):
        cache = akd.TeacherCache.build(vlm, digits.pool, 2, shared_cache, progress=False)
        index = digits.oracle.initial_indices(5, akd.seeding.generator(0, "labels"))
        state = akd.LabelState.empty(1100).with_labels(index, digits.oracle.label(index), 0)
        teacher = akd.ClapTeacher(
            cache, vlm.text_weights(digits.classnames, digits.templates, unit=False)
        )
        rest, now = state.unlabeled_indices, teacher.fitted(state, 0)
        assert accuracy(now, digits, rest) > accuracy(teacher, digits, rest) + 3

    def test_the_constraint_keeps_a_prototype_near_its_start(self, clap, state):
        moved = {}
        for constraint in (0.0, 10.0):
            config = akd.ClapConfig(constraint=constraint)
            teacher = akd.ClapTeacher(clap.cache, clap.start, config=config)
            moved[constraint] = (teacher.fitted(state, 0).prototypes - clap.start).norm()
        assert moved[10.0] < moved[0.0] / 2

    def test_a_class_without_a_label_is_not_constrained(self, clap, state):
        few = torch.nonzero(state.labels == 3).flatten()
        held = clap._confidence(few, state.labels[few])
        assert held[3] > 0
        assert held[[0, 1, 2, 4, 5, 6, 7, 8, 9]].eq(0).all()

    def test_lag_leaves_out_the_newest_round(self, clap, state):
        lagging = akd.ClapTeacher(clap.cache, clap.start, config=akd.ClapConfig(lag=1))
        before = akd.LabelState.empty(150).with_labels(torch.arange(40), state.labels[:40], 0)
        assert torch.equal(lagging.fitted(state, 5).prototypes, clap.fitted(before, 5).prototypes)
        first = lagging.fitted(before, 5)  # the first round is never left out
        assert torch.equal(first.prototypes, clap.fitted(before, 5).prototypes)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("passes", 7),
            ("batch_size", 16),
            ("lr", 0.02),
            ("momentum", 0.5),
            ("warmup", 0.5),
            ("constraint", 0.3),
            ("lag", 1),
            ("sampling", "chained"),
            ("sampling", "replacement"),
            ("schedule", "linear_from_zero"),
        ],
    )
    def test_every_setting_alone_changes_the_teacher(self, clap, state, field, value):
        base = akd.ClapConfig(passes=5)
        first, other = (
            akd.ClapTeacher(clap.cache, clap.start, config=c).fitted(state, 0)
            for c in (base, replace(base, **{field: value}))
        )
        assert not torch.equal(first.prototypes, other.prototypes)

    def test_every_setting_is_in_the_fingerprint(self, clap):
        assert {f.name for f in fields(akd.ClapConfig)} <= set(clap.fingerprint())

    def test_same_seed_same_prototypes(self, clap, state):
        assert torch.equal(clap.fitted(state, 3).prototypes, clap.fitted(state, 3).prototypes)
        assert not torch.equal(clap.fitted(state, 3).prototypes, clap.fitted(state, 4).prototypes)

    def test_a_run_refits_before_each_student_and_resumes(
        self, clap, small, quick, tmp_path, monkeypatch
    ):
        asked, original = [], akd.ClapTeacher.fitted

        def fitted(self, state, seed):
            asked.append(len(state.labeled_indices))
            return original(self, state, seed)

        monkeypatch.setattr(akd.ClapTeacher, "fitted", fitted)
        options = {"rounds": 2, "query_size": 5, "train": quick, "progress": False, "device": "cpu"}
        whole = akd.run_active_learning(small, clap, **options)
        assert asked == [10, 15, 20]

        def stop(record):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            akd.run_active_learning(small, clap, out=tmp_path, on_round=stop, **options)
        again = akd.run_active_learning(small, clap, out=tmp_path, **options)
        assert [r.outcome() for r in again.records] == [r.outcome() for r in whole.records]
        assert "teacher" in whole.records[0].seconds

    def test_settings_that_cannot_work_are_refused_by_value(self):
        wrong = {"passes": 0, "lr": -1.0, "momentum": 1.0, "warmup": 2.0, "constraint": -1.0}
        for name, value in (wrong | {"lag": 2}).items():
            with pytest.raises(ValueError, match=f"{name} = {value}"):
                akd.ClapConfig(**{name: value})


class TestLogits:
    def test_the_logits_of_a_teacher_give_the_run_of_that_teacher(self, small, teacher, quick):
        """Picks and accuracies are equal; other numbers are close.

        Logits of 150 images and of 8 may differ in the last bit.
        """
        array = torch.stack([teacher.logits(torch.arange(150), v) for v in range(3)])
        brought = akd.teacher.from_logits(array, teacher.views)
        options = {"rounds": 1, "query_size": 5, "train": quick, "progress": False, "device": "cpu"}
        first, other = (
            akd.run_active_learning(small, t, **options).records for t in (teacher, brought)
        )
        for a, b in zip(first, other, strict=True):
            for field in ("query_indices", "accuracy_pct", "labeled_count"):
                assert getattr(a, field) == getattr(b, field)
            assert a.calibration_error_pct == pytest.approx(b.calibration_error_pct, rel=1e-4)
            assert a.covering_radius == pytest.approx(b.covering_radius, rel=1e-4)
            for part, losses in a.loss_curve.items():
                # losses are rounded to 4 digits
                assert losses == pytest.approx(b.loss_curve[part], rel=1e-4, abs=2e-4)

    def test_logits_without_views_serve_every_view(self, small, quick):
        array = np.random.default_rng(0).normal(size=(150, 10))
        brought = akd.teacher.from_logits(array)
        logits = brought.logits(torch.tensor([5, 5, 9]), torch.tensor([0, 4, 2]))
        torch.testing.assert_close(logits, torch.tensor(array[[5, 5, 9]]).float())
        options = {"query_size": 5, "train": quick, "progress": False}
        akd.run_active_learning(small, brought, rounds=1, **options)
        options |= {"shots": 0, "strategy": "pcoreset_teacher"}
        cold = akd.run_active_learning(small, brought, rounds=0, **options)
        assert cold.records[0].labeled_count == 5

    def test_a_teacher_that_learns_is_refitted_in_each_round(self, small, quick):
        seen = []

        def refit(state):
            seen.append(len(state.labeled_indices))
            return np.zeros((150, 10), np.float32) + len(seen)

        brought = akd.teacher.from_logits(np.zeros((150, 10)), refit=refit)
        akd.run_active_learning(small, brought, rounds=2, query_size=5, train=quick, progress=False)
        assert seen == [10, 15, 20]
        assert brought.fingerprint()["refit"].endswith("refit")
        wrong = akd.teacher.from_logits(np.zeros((150, 10)), refit=lambda state: np.zeros((150, 3)))
        shapes = r"\(1, 150, 3\); \(1, 150, 10\) are needed"
        with pytest.raises(ValueError, match=f"refit gave logits {shapes}"):
            akd.run_active_learning(small, wrong, rounds=0, train=quick, progress=False)

    def test_invalid_logits_are_refused_by_value(self, small, quick):
        for array, complaint in (
            (np.zeros(5), r"logits are \(5,\)"),
            (np.zeros((5, 3), int), "torch.int64; floats"),
            (np.zeros((2, 5, 3)), r"\(2, 5, 3\) with views = None"),
            (np.full((5, 3), -np.inf), "at least 1e-9 and take the logarithm"),
        ):
            with pytest.raises(ValueError, match=complaint):
                akd.teacher.from_logits(array)
        with pytest.raises(ValueError, match="give .N, C. alone"):
            akd.teacher.from_logits(np.zeros((5, 3)), akd.Views(5))
        few = akd.teacher.from_logits(np.zeros((7, 10)))
        message = r"outputs \(7 images\) were made from other images than small's pool \(150\)"
        with pytest.raises(ValueError, match=message):
            akd.run_active_learning(small, few, rounds=0, train=quick)


def test_text_weights_of_another_length_are_refused(vlm, small, teacher):
    raw = vlm.text_weights(small.classnames, small.templates, "raw", unit=False)
    with pytest.raises(ValueError, match="have norms .*not 1.*unit=False is for ClapTeacher"):
        akd.ZeroShotTeacher(teacher.cache, raw)
    torch.testing.assert_close(
        F.normalize(raw, dim=0), vlm.text_weights(small.classnames, small.templates, "raw")
    )
