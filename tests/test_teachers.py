"""Few-shot teachers beside CLAP, controlled teachers, and their names."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

import activekd_lite as akd
from activekd_lite.analysis import structure
from activekd_lite.experiments.config import RunConfig, make_teacher
from activekd_lite.experiments.grid import Grid
from activekd_lite.teachers import ADAPTERS, CONTROLS, TEACHERS, LpPlusPlus, Rla, TipAdapter
from activekd_lite.teachers.few_shot import Labeled
from activekd_lite.teachers.lp_plus_plus import step_sizes

CLASSES, IMAGES = 6, 900


@pytest.fixture(scope="module")
def labels():
    return torch.arange(IMAGES) % CLASSES


@pytest.fixture(scope="module")
def structured(labels):
    """A teacher who doubts each class in favour of the next one, and errs in its favour."""
    g = torch.Generator().manual_seed(0)
    answer = torch.where(torch.rand(IMAGES, generator=g) < 0.2, (labels + 1) % CLASSES, labels)
    logits = 0.3 * torch.randn(IMAGES, CLASSES, generator=g)
    logits[torch.arange(IMAGES), answer] += 4
    logits[torch.arange(IMAGES), (answer + 1) % CLASSES] += 2
    return akd.teacher.from_logits(logits, test=logits[:100])


@pytest.fixture(scope="module")
def labeled():
    """Unit features in two views of nine images of three classes, the third with one image."""
    g = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])
    text = F.normalize(torch.randn(8, 3, generator=g), dim=0)
    features = text.T[labels] + 0.5 * torch.randn(2, 9, 8, generator=g)
    return Labeled(F.normalize(features, dim=2), labels, text, 10.0)


@pytest.fixture(scope="module")
def weights(vlm, small):
    return vlm.text_weights(small.classnames, small.templates)


@pytest.fixture(scope="module")
def state(small):
    known = torch.arange(60)
    return akd.LabelState.empty(150).with_labels(known, small.oracle.label(known), 0)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


class TestControlled:
    @pytest.mark.parametrize(
        ("control", "broken"),
        [
            ("noise", "confidence"),
            ("overconfident", "confidence"),
            ("shuffled", "structure"),
            ("biased", "answers"),
        ],
    )
    def test_each_control_breaks_one_property_and_keeps_the_others(
        self, structured, labels, control, broken
    ):
        before = structured.probs()
        after = akd.ControlledTeacher(structured, control).probs()

        def second_choices(probs):
            first, second = probs.topk(2, dim=1).indices.T
            return structure.perplexity(structure.confusion_matrix(first, second, CLASSES))

        kept = {
            "answers": torch.equal(before.argmax(dim=1), after.argmax(dim=1)),
            "confidence": torch.allclose(before.amax(dim=1), after.amax(dim=1), atol=1e-5),
            "structure": second_choices(after) < 1.5 * second_choices(before),
        }
        assert {name for name, whole in kept.items() if not whole} == {broken}
        change = akd.metrics.accuracy_pct(after, labels) - akd.metrics.accuracy_pct(before, labels)
        assert change == 0 if broken != "answers" else change < -5

    def test_noise_keeps_the_clusters(self, structured):
        """Their share of the variance stays, as all points move straight to the centre."""
        before, noisy = structured.probs(), akd.ControlledTeacher(structured, "noise").probs()
        torch.testing.assert_close(noisy, 0.5 * before + 0.5 / CLASSES)
        shares = [structure.explained_share(p, p.argmax(dim=1)) for p in (before, noisy)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-4)

    def test_overconfidence_is_a_temperature(self, structured):
        index = torch.arange(20)
        sharp = akd.ControlledTeacher(structured, "overconfident", 0.25)
        torch.testing.assert_close(sharp.logits(index), 4 * structured.logits(index))
        assert (sharp.probs().amax(dim=1) >= structured.probs().amax(dim=1)).all()

    def test_shuffled_doubt_spreads_evenly_over_the_other_classes(self, structured):
        before, after = structured.probs(), akd.ControlledTeacher(structured, "shuffled").probs()
        torch.testing.assert_close(before.sort(dim=1).values, after.sort(dim=1).values)
        second = after[before.argmax(dim=1) == 0].topk(2, dim=1).indices[:, 1]
        counts = torch.bincount(second, minlength=CLASSES)[1:]
        assert counts.min() > 0.5 * counts.float().mean()

    def test_bias_concentrates_the_errors_on_one_pair(self, structured, labels):
        biased = akd.ControlledTeacher(structured, "biased", pair=(2, 4))
        before, after = (t.probs().argmax(dim=1) for t in (structured, biased))
        assert torch.equal(after, torch.where(before == 2, 4, before))
        half = akd.ControlledTeacher(structured, "biased", 0.5, pair=(2, 4)).probs().argmax(dim=1)
        changed = (half != before).sum() / (before == 2).sum()
        assert 0.35 < changed < 0.65
        errors = structure.without_diagonal(structure.confusion_matrix(labels, after, CLASSES))
        assert errors.argmax() == 2 * CLASSES + 4

    @pytest.mark.parametrize("control", CONTROLS)
    def test_a_change_depends_on_the_image_alone(self, structured, control):
        changed = akd.ControlledTeacher(structured, control)
        index = torch.tensor([7, 3, 500])
        torch.testing.assert_close(
            changed.logits(index).softmax(dim=1), changed.probs()[index], atol=1e-6, rtol=1e-5
        )
        again = changed.to("cpu").fitted(akd.LabelState.empty(IMAGES), 3)
        assert torch.equal(again.probs(), changed.probs())
        assert changed.test_probs().shape == (100, CLASSES)
        assert not torch.allclose(changed.test_probs(), structured.test_probs())

    def test_a_base_that_learns_is_fitted_before_the_change(self, structured):
        new = structured.array[0].flip(-1)
        base = akd.teacher.from_logits(structured.array[0], refit=lambda state: new)
        changed = akd.ControlledTeacher(base, "overconfident", 0.5)
        fitted = changed.fitted(akd.LabelState.empty(IMAGES), 0)
        torch.testing.assert_close(fitted.logits(torch.arange(9)), 2 * new[:9])

    def test_test_images_are_shuffled_unlike_those_of_the_pool(self, structured):
        changed = akd.ControlledTeacher(structured, "shuffled")
        assert not torch.allclose(changed.test_probs(), changed.probs()[:100])

    def test_another_seed_or_amount_is_another_teacher(self, structured):
        shuffled = [akd.ControlledTeacher(structured, "shuffled", seed=s) for s in (0, 1)]
        assert not torch.equal(shuffled[0].probs(), shuffled[1].probs())
        kinds = [akd.ControlledTeacher(structured, "noise", a) for a in (None, 0.5, 0.3)]
        assert [t.fingerprint()["kind"] for t in kinds] == 2 * ["logits+noise"] + [
            "logits+noise=0.3"
        ]
        prints = [str(t.fingerprint()) for t in (*shuffled, *kinds[1:])]
        assert len(set(prints)) == 4

    def test_an_impossible_control_is_refused(self, structured):
        for options, complaint in (
            (("noisy",), "choose one of noise, shuffled"),
            (("shuffled", 0.5), "takes no amount"),
            (("noise", 1.0), "between 0 and 1 is needed, such as 0.5"),
            (("biased", None, (2, 2)), "two of the 6 classes"),
        ):
            with pytest.raises(ValueError, match=complaint):
                akd.ControlledTeacher(structured, *options)


class TestAdapters:
    @pytest.mark.parametrize("kind", ADAPTERS)
    def test_without_labels_it_is_the_zero_shot_teacher(self, teacher, weights, kind):
        few_shot = akd.FewShotTeacher(teacher.cache, weights, ADAPTERS[kind]())
        again = few_shot.fitted(akd.LabelState.empty(150), 0)
        torch.testing.assert_close(again.probs(1), teacher.probs(1))

    @pytest.mark.parametrize("kind", ADAPTERS)
    def test_labels_help_on_other_images(self, teacher, weights, small, state, kind):
        few_shot = akd.FewShotTeacher(teacher.cache, weights, ADAPTERS[kind]())
        others = torch.arange(60, 150)
        found = [
            akd.metrics.accuracy_pct(t.probs()[others], small.oracle.label(others))
            for t in (teacher, few_shot.fitted(state, 0))
        ]
        assert found[1] > found[0]

    @pytest.mark.parametrize("kind", ADAPTERS)
    def test_every_setting_changes_the_teacher_and_its_fingerprint(
        self, teacher, weights, state, kind
    ):
        base = ADAPTERS[kind]()
        usual = akd.FewShotTeacher(teacher.cache, weights, base)
        for field in fields(base):
            value = getattr(base, field.name)
            changed = replace(base, **{field.name: not value if value is True else value / 2})
            if isinstance(value, int) and value is not True:
                changed = replace(base, **{field.name: value // 2})
            other = akd.FewShotTeacher(teacher.cache, weights, changed)
            assert other.fingerprint() != usual.fingerprint()
            fits = [t.fitted(state, 0).probs() for t in (usual, other)]
            assert not torch.equal(*fits), field.name

    def test_tip_adapter_by_hand(self, labeled):
        adapter = TipAdapter(alpha=2.0, beta=3.0, balanced=False)
        fitted = adapter.fit(labeled, draws())
        query = F.normalize(torch.ones(8), dim=0)
        found = adapter.logits(query[None], torch.zeros(1, 3), fitted)[0]
        keys = F.normalize(labeled.features[0] + labeled.features[1], dim=1)
        wanted = torch.zeros(3)
        for key, y in zip(keys, labeled.labels.tolist(), strict=True):
            wanted[y] += 2.0 * torch.exp(-3.0 * (1 - query @ key))
        torch.testing.assert_close(found, wanted)

    def test_tip_adapter_does_not_prefer_the_classes_with_more_labels(self, labeled):
        same = labeled._replace(features=torch.ones(2, 9, 8) / 8**0.5)  # nothing to tell them apart
        for balanced in (True, False):
            adapter = TipAdapter(balanced=balanced)
            found = adapter.logits(same.features[0, :1], torch.zeros(1, 3), adapter.fit(same, None))
            assert (found.max() - found.min() < 1e-5) == balanced

    def test_the_penalty_of_rla_is_divided_by_the_labels_per_class(self, labeled):
        """One step of gradient descent would do the same for twice the labels and penalty."""
        twice = labeled._replace(
            features=labeled.features.repeat(1, 2, 1), labels=labeled.labels.repeat(2)
        )
        one_view = [x._replace(features=x.features[:1]) for x in (labeled, twice)]
        a, b = (
            Rla(constraint=c).fit(x, draws())["adapter"]
            for c, x in zip((1.0, 2.0), one_view, strict=True)
        )
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
        free, held = (Rla(constraint=c).fit(labeled, draws())["adapter"] for c in (0.0, 10.0))
        identity = torch.eye(8)
        assert (held - identity).norm() < 0.5 * (free - identity).norm()

    def test_rla_finds_a_lower_objective_than_the_identity(self, labeled):
        one_view = labeled._replace(features=labeled.features[:1])

        def objective(adapter):
            adapted = F.normalize(one_view.features[0] @ adapter.T, dim=1)
            loss = F.cross_entropy(10 * adapted @ one_view.text_weights, one_view.labels)
            return loss + 3 / 9 * (adapter - torch.eye(8)).square().sum()

        found = Rla(lr=1e-2).fit(one_view, draws())["adapter"].requires_grad_()
        assert objective(found) < objective(torch.eye(8))
        (gradient,) = torch.autograd.grad(objective(found), found)
        start = torch.eye(8).requires_grad_()
        (at_start,) = torch.autograd.grad(objective(start), start)
        assert gradient.norm() < 0.05 * at_start.norm()  # nearly at the minimum

    def test_step_sizes_of_lp_plus_plus_by_hand(self, labeled):
        features, text = labeled.features.flatten(0, 1), labeled.text_weights
        probe, factors = step_sizes(features, text)
        largest = torch.linalg.svdvals(features)[0] ** 2
        assert probe == pytest.approx(4 * 18 / largest.item(), rel=1e-4)
        sums = [sum(float(f @ text[:, k]) ** 2 for f in features) for k in range(3)]
        assert factors == pytest.approx(18 / (4 * max(sums)), rel=1e-4)

    def test_lp_plus_plus_is_gradient_descent_on_the_blended_probe(self, labeled):
        found = LpPlusPlus(steps=12, momentum=0.0).fit(labeled, draws())
        f, text = labeled.features.flatten(0, 1).double(), labeled.text_weights.double()
        y = labeled.labels.repeat(2)
        w = torch.stack([f[y == k].mean(dim=0) for k in range(3)], dim=1)
        b, a = torch.zeros(3).double(), torch.full((3,), 10.0).double()
        probe_lr, factor_lr = step_sizes(f.float(), text.float())
        for step in range(1, 13):
            rest = (f @ w + a * (f @ text) + b).softmax(dim=1) - F.one_hot(y, 3)  # dCE/dlogits
            a_gradient = (rest * (f @ text)).mean(dim=0)
            w, b = w - probe_lr * f.T @ rest / len(f), b - probe_lr * rest.mean(dim=0)
            a = a - factor_lr * a_gradient if step == 10 else a
        torch.testing.assert_close(found["weights"].double(), w + a * text, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["bias"].double(), b, atol=1e-4, rtol=1e-4)

    def test_a_class_without_a_label_is_still_predicted(self, labeled):
        """Its features lie where its text weights are. A probe (LP++) learns to avoid it."""
        few = labeled._replace(features=labeled.features[:, :8], labels=labeled.labels[:8])
        third = labeled.text_weights.T[2:]
        for adapter in (TipAdapter(), Rla()):
            zero_shot = labeled.logit_scale * third @ labeled.text_weights
            found = adapter.logits(third, zero_shot, adapter.fit(few, draws()))
            assert found.argmax() == 2, adapter

    def test_impossible_settings_are_refused(self):
        for make, complaint in (
            (lambda: TipAdapter(alpha=0), "alpha = 0 must be larger than 0"),
            (lambda: Rla(steps=0), "steps = 0 must be larger than 0"),
            (lambda: Rla(constraint=-1), "constraint = -1 must not be negative"),
            (lambda: LpPlusPlus(momentum=1.0), "must lie in"),
            (lambda: LpPlusPlus(steps=1.5), "steps = 1.5"),
        ):
            with pytest.raises(ValueError, match=complaint):
                make()


class TestNames:
    @pytest.mark.parametrize("name", [*TEACHERS, "zero-shot+shuffled", "rla+noise=0.3"])
    def test_a_teacher_by_name_teaches_and_is_recorded(
        self, name, small, vlm, quick, tmp_path_factory, shared_cache
    ):
        teacher = make_teacher(
            name, vlm, small, 2, shared_cache, clap=akd.ClapConfig(passes=3), progress=False
        )
        run = akd.run_active_learning(
            small, teacher, rounds=1, query_size=5, train=quick, progress=False
        )
        assert set(run.to_frame()["teacher"]) == {name}
        assert all(record.teacher_accuracy_pct > 50 for record in run.records)

    @pytest.mark.parametrize(
        "name", ["clip", "zero-shot+", "zero-shot+noisy", "shuffled", "clap+noise=much", "+noise"]
    )
    def test_an_unknown_name_is_refused_with_those_that_exist(self, name):
        match = r"is not a number" if "=" in name else r"zero-shot, clap, tip-adapter.*\+shuffled"
        with pytest.raises(ValueError, match=match):
            RunConfig(teacher=name)

    def test_names_in_a_grid(self):
        names = ("zero-shot", "zero-shot+shuffled", "rla", {"name": "odd", "teacher": "clap+noise"})
        runs = Grid(teachers=names, strategies=("random",), distill=(True,)).runs()
        assert [folder.split("/")[1] for folder in runs] == [
            "random-activekd",
            "random-zero-shot+shuffled",
            "random-rla",
            "random-odd",
        ]
        assert [planned.config.teacher for planned in runs.values()] == [
            *names[:3],
            "clap+noise",
        ]
