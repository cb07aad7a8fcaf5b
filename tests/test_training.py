from dataclasses import fields, replace
from itertools import combinations

import pytest
import torch

import activekd_lite as akd
from activekd_lite.banks import ViewBank
from activekd_lite.calibration import tempered
from activekd_lite.losses import DISTILL_ON, tempered_kl
from activekd_lite.training import _plan

BASE = {
    "steps": 6,
    "batch_size": 8,
    "lr": 2e-3,
    "weight_decay": 0.01,
    "warmup": 0.5,
    "schedule": "linear",
    "temperature": 2.0,
    "kd_weight": 0.5,
    "beta": 1.0,
    "passes": None,
    "pretrained": True,
    "precision": "auto",
    "pool_passes": None,
    "padded": False,
    "labeled_sampling": "replacement",
    "unlabeled_sampling": "replacement",
    "separate_batches": False,
    "heads": "dual",
    "distill_on": "both",
    "kd_loss_weight": 0.5,
    "standardize_logits": False,
}
CHANGED = {
    "steps": 7,
    "batch_size": 9,
    "lr": 1e-3,
    "weight_decay": 0.5,
    "warmup": 0.1,
    "schedule": "cosine",
    "temperature": 4.0,
    "kd_weight": 0.9,
    "beta": 0.5,
    "passes": 3,
    "pretrained": False,
    "precision": "bfloat16",
    "pool_passes": 0.5,
    "padded": True,
    "labeled_sampling": "passes",
    "unlabeled_sampling": "passes",
    "separate_batches": True,
    "heads": "single",
    "distill_on": "labeled",
    "kd_loss_weight": 0.8,
    "standardize_logits": True,
}
# Fields whose effect other tests show.
ELSEWHERE = {"last_round_pool_passes", "eval_kd_weight", "eval_beta", "compile", "calibrate"}


@pytest.fixture(scope="module")
def state(small):
    index = small.oracle.initial_indices(1, akd.seeding.generator(0, "x"))
    return akd.LabelState.empty(150).with_labels(index, small.oracle.label(index), 0)


def answers(small, state, teacher, config, seed=0, student="tiny-cnn"):
    net = akd.train_student(
        small.pool, state, teacher, config=config, seed=seed, student=student, device="cpu"
    )
    return akd.predict(net, small.test.images, **config.mixing(True)).probs


def test_the_same_seed_gives_the_same_student_whatever_was_drawn_before(
    small, state, teacher, quick
):
    first = answers(small, state, teacher, quick)
    torch.manual_seed(99)
    assert torch.equal(first, answers(small, state, teacher, quick))
    assert not torch.equal(first, answers(small, state, teacher, quick, seed=1))


def test_training_leaves_the_global_random_state_alone(small, state, teacher, quick):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    answers(small, state, teacher, quick)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("field", BASE)
def test_every_setting_alone_changes_the_student(small, state, teacher, field):
    base, student = akd.TrainConfig(**BASE), "tiny-resnet" if field == "pretrained" else "tiny-cnn"
    first, other = (
        answers(small, state, teacher, config, student=student)
        for config in (base, replace(base, **{field: CHANGED[field]}))
    )
    assert not torch.equal(first, other)


def test_the_effect_of_every_setting_is_tested():
    assert {f.name for f in fields(akd.TrainConfig)} == {*BASE, *ELSEWHERE}


def test_each_choice_of_images_gives_another_student(small, state, teacher, quick):
    found = [answers(small, state, teacher, replace(quick, distill_on=on)) for on in DISTILL_ON]
    for one, other in combinations(found, 2):
        assert not torch.equal(one, other)


def test_a_student_of_labelled_images_never_sees_the_others(small, state, teacher, quick):
    labeled = set(state.labeled_indices.tolist())
    plan = _plan(state, 1, replace(quick, distill_on="labeled"), 0, distilled=True)
    assert {i for index, _ in plan for i in index.tolist()} <= labeled
    both, alone = (
        _plan(state, 1, replace(quick, distill_on=on), 0, distilled=True)
        for on in ("both", "unlabeled")
    )
    for (index, view), (other, other_view) in zip(both, alone, strict=True):
        assert torch.equal(index, other)
        assert torch.equal(view, other_view)


def test_a_single_head_learns_labels_and_teacher(small, state, teacher):
    """The ce head agrees with the teacher more often, and the kd head is left as it was made."""
    dual = akd.TrainConfig(steps=60, batch_size=16)
    nets = [
        akd.train_student(small.pool, state, teacher, config=replace(dual, heads=heads))
        for heads in ("dual", "single")
    ]
    expected, start = teacher.probs().argmax(dim=1), akd.build_student("tiny-cnn", 10)
    agreeing = [
        (akd.predict(net, small.pool.images, kd_weight=0).probs.argmax(dim=1) == expected).sum()
        for net in nets
    ]
    assert agreeing[1] > agreeing[0]
    assert torch.equal(nets[1].kd_head.weight, start.kd_head.weight)
    assert not torch.equal(nets[0].kd_head.weight, start.kd_head.weight)
    assert replace(dual, heads="single").mixing(True) == dual.mixing(False)


def test_calibration_changes_the_test_probabilities_and_nothing_else(
    small, teacher, quick, tmp_path
):
    options = {"rounds": 1, "query_size": 3, "progress": False, "device": "cpu"}
    raw, calibrated = (
        akd.run_active_learning(
            small, teacher, train=replace(quick, calibrate=c), out=tmp_path / str(c), **options
        )
        for c in (False, True)
    )
    differing = set()
    for one, other in zip(raw.records, calibrated.records, strict=True):
        one, other = one.outcome(), other.outcome()
        differing |= {name for name in one if one[name] != other[name]}
    of_test_probs = {"nearest_neighbor_loss_pct", "cluster_purity_pct"}
    assert differing == {"calibration_error_pct", "calibration_temperature"} | of_test_probs
    temperature = calibrated.records[-1].calibration_temperature
    probs = akd.load_run(tmp_path / "True", "cpu").predict(small.test.images).probs
    expected = tempered(raw.predict(small.test.images).probs, temperature)
    torch.testing.assert_close(probs, expected)


def test_a_calibration_is_fitted_to_probabilities_mixed_as_on_the_test_set(small, teacher, quick):
    base = replace(quick, calibrate=True)
    found = [
        akd.run_active_learning(
            small, teacher, rounds=0, train=replace(base, **changes), progress=False, device="cpu"
        )
        .records[0]
        .calibration_temperature
        for changes in ({"kd_weight": 0.1}, {"eval_kd_weight": 0.1}, {})
    ]
    assert found[0] == found[1] != found[2]


def test_passes_set_the_number_of_steps():
    config = akd.TrainConfig(passes=200, batch_size=64)
    assert [config.steps_for(n) for n in (100, 1600, 1)] == [313, 5000, 4]
    assert [replace(config, padded=True).steps_for(n) for n in (100, 1600, 1)] == [400, 5000, 200]
    assert akd.TrainConfig(steps=7).steps_for(1600) == 7
    assert akd.TrainConfig(passes=100, batch_size=100).steps_for(7) == 7  # whole numbers stay whole
    pool = akd.TrainConfig(pool_passes=2, last_round_pool_passes=5, batch_size=64)
    assert [pool.steps_for(10, 129), pool.steps_for(10, 129, last_round=True)] == [6, 15]
    assert replace(pool, last_round_pool_passes=None).steps_for(10, 129, last_round=True) == 6


def test_only_the_last_round_is_longer(small, teacher):
    train = akd.TrainConfig(pool_passes=0.5, last_round_pool_passes=1, batch_size=32)
    result = akd.run_active_learning(
        small, teacher, rounds=1, query_size=5, train=train, device="cpu", progress=False
    )
    # a pass over the last round's pool of 135 is 5 batches
    assert [len(r.loss_curve["ce"]) for r in result.records] == [3, 5]


def planned(state, config, distilled=True):
    """The images of every step, (S, B) labelled and (S, B) unlabelled."""
    images = torch.stack([index for index, _ in _plan(state, 1, config, 0, distilled=distilled)])
    return images.split(config.batch_size, dim=1)


def test_a_padded_set_repeats_the_images_that_were_labelled_first(small, state):
    late = torch.tensor([i for i in range(20) if state.labels[i] < 0][:3])
    # 13 labels; the first 7 are repeated to make 20
    state = state.with_labels(late, torch.zeros(3, dtype=torch.int64), round=1)
    labeled, _ = planned(state, akd.TrainConfig(steps=4000, batch_size=10, padded=True))
    counts = labeled.flatten().bincount(minlength=150).double() / 40_000
    first = state.in_labeling_order()
    assert first[-3:].tolist() == sorted(late.tolist())
    expected = torch.tensor([0.1] * 7 + [0.05] * 6).double()
    torch.testing.assert_close(counts[first], expected, atol=0.01, rtol=0)


def test_a_pass_shows_every_image_equally_often(state):
    config = akd.TrainConfig(
        pool_passes=2, batch_size=28, labeled_sampling="passes", unlabeled_sampling="passes"
    )
    labeled, unlabeled = planned(state, config)  # 140 images without a label: 5 batches a pass
    assert (unlabeled[:5].flatten().bincount(minlength=150)[state.unlabeled_indices] == 1).all()
    assert (unlabeled.flatten().bincount(minlength=150)[state.unlabeled_indices] == 2).all()
    assert not torch.equal(unlabeled[:5], unlabeled[5:])
    assert (labeled[:5].flatten().bincount(minlength=150)[state.labeled_indices] == 14).all()


def test_separate_batches_are_normalised_apart(small, state, teacher, monkeypatch):
    seen, forward = [], akd.DualHeadStudent.forward
    monkeypatch.setattr(
        akd.DualHeadStudent, "forward", lambda net, x: seen.append(len(x)) or forward(net, x)
    )
    for separate, sizes in ((False, [16, 16]), (True, [8, 8, 8, 8])):
        config = akd.TrainConfig(steps=2, batch_size=8, separate_batches=separate)
        akd.train_student(small.pool, state, teacher, config=config, device="cpu")
        assert seen == sizes
        seen.clear()


def test_evaluation_may_mix_the_heads_differently(small, state, teacher, quick):
    config = replace(quick, kd_weight=0.3, beta=2.0, eval_kd_weight=0.8, eval_beta=0.5)
    assert config.mixing(True) == {"kd_weight": 0.3, "beta": 2.0, "distilled": True}
    tested = {"kd_weight": 0.8, "beta": 0.5, "distilled": True}
    assert config.mixing(True, evaluation=True) == tested
    assert config.mixing(False, evaluation=True)["kd_weight"] == 0
    assert quick.mixing(True, evaluation=True) == quick.mixing(True)
    options = {"rounds": 1, "query_size": 3, "progress": False, "device": "cpu"}
    same, other = (
        akd.run_active_learning(small, teacher, train=t, **options)
        for t in (replace(quick, kd_weight=0.3, beta=2.0), config)
    )
    assert same.records[0].query_indices == other.records[0].query_indices  # selection is as it was
    assert same.records[0].calibration_error_pct != other.records[0].calibration_error_pct


def test_half_precision_learns_nearly_the_same(small, state, teacher):
    # float16 takes a second per step on a CPU
    for precision, steps in (("bfloat16", 40), ("float16", 3)):
        config = akd.TrainConfig(steps=steps, batch_size=8)
        whole, half = (
            answers(small, state, teacher, replace(config, precision=p))
            for p in ("float32", precision)
        )
        assert not torch.equal(half, whole)
        assert (half.argmax(dim=1) == whole.argmax(dim=1)).float().mean() > 0.7


def test_a_student_can_be_compiled(small, state, quick, monkeypatch):
    """torch.compile is called, and its result is trained; compiling itself is torch's job."""
    calls = []

    def compiled(net):
        def forward(x):
            calls.append(len(x))
            return net(x)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    first = answers(small, state, None, replace(quick, compile=True))
    assert calls == [quick.batch_size] * quick.steps
    assert torch.equal(first, answers(small, state, None, quick))


def test_loss_curves_are_what_was_minimised(small, state, teacher, quick):
    config = replace(quick, steps=40)
    with_teacher, without = (
        akd.train_student(small.pool, state, t, config=config, device="cpu").loss_curve
        for t in (teacher, None)
    )
    assert with_teacher.shape == without.shape == (40, 2)
    assert without[:, 1].eq(0).all()
    for curve in (with_teacher[:, 0], with_teacher[:, 1], without[:, 0]):
        assert curve[-10:].mean() < curve[:10].mean()
    net = akd.build_student("tiny-cnn", 10, device="cpu").train()  # the first step, by hand
    bank = ViewBank(small.pool, teacher.views, 16, torch.device("cpu"))
    index, view = _plan(state, 3, config, 0, distilled=True)[0]
    ce, kd = net(bank(index, view))
    logits = teacher.logits(index, view)
    distilled = sum(tempered_kl(kd[part], logits[part]) for part in (slice(8), slice(8, 16)))
    supervised = torch.nn.functional.cross_entropy(ce[:8], state.labels[index[:8]])
    torch.testing.assert_close(with_teacher[0], torch.stack([supervised, distilled]).detach())
    options = {"rounds": 0, "train": config, "progress": False}
    taught, plain = (
        akd.run_active_learning(small, t, **options).records[0].loss_curve for t in (teacher, None)
    )
    assert {k: len(v) for k, v in taught.items()} == {"ce": 20, "kd": 20}
    assert list(plain) == ["ce"]


def test_settings_that_cannot_work_are_refused_by_value():
    wrong = {"steps": 0, "batch_size": 0, "lr": -1.0, "warmup": 2.0, "schedule": "step"}
    wrong |= {"kd_weight": 1.5, "passes": 0, "eval_kd_weight": -0.1, "eval_beta": 0}
    wrong |= {"heads": "triple", "distill_on": "none", "kd_loss_weight": 0}
    for field, value in (wrong | {"precision": "int8"}).items():
        with pytest.raises(ValueError, match=f"{field} = '?{value}"):
            akd.TrainConfig(**{field: value})
    mixed = {"kd_weight": 0.3, "beta": 2.0, "eval_kd_weight": 0.6, "eval_beta": 0.5}
    for field, value in mixed.items():
        with pytest.raises(ValueError, match=f"{field} = {value} mixes two heads"):
            akd.TrainConfig(heads="single", **{field: value})
    single = akd.TrainConfig(heads="single")
    with pytest.raises(ValueError, match="selection_source = 'kd' needs a head of its own"):
        akd.RunConfig(selection_source="kd", train=single)


def test_learning_rate_rises_then_falls_to_zero():
    config = akd.TrainConfig(warmup=0.1)
    factors = [config.lr_factor(s, 100) for s in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0
    assert akd.TrainConfig(schedule="cosine").lr_factor(55, 100) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_student_learns_the_teacher_on_unlabelled_images(small, state, teacher):
    """The kd_head agrees with the teacher on the pool far more often than a plain student does."""
    config = akd.TrainConfig(steps=120, batch_size=32)
    expected = teacher.probs().argmax(dim=1)

    def agreement(teacher, kd_weight):
        net = akd.train_student(small.pool, state, teacher, config=config, device="cpu")
        found = akd.predict(net, small.pool.images, kd_weight=kd_weight).probs.argmax(dim=1)
        return (found == expected)[state.unlabeled_indices].float().mean()

    taught = agreement(teacher, 1.0)
    assert taught > 0.8
    assert taught > agreement(None, 0.0) + 0.1


def test_the_student_learns_the_labels(small, state):
    config = akd.TrainConfig(steps=60, batch_size=16)
    net = akd.train_student(small.pool, state, config=config, device="cpu")
    index = state.labeled_indices
    found = akd.predict(net, small.pool.images[index], kd_weight=0).probs.argmax(dim=1)
    assert torch.equal(found, state.labels[index])


def test_hidden_labels_are_never_read(small, state, teacher, quick):
    """Labels that were not queried have no influence: only the state carries labels."""
    assert state.labels[state.unlabeled_indices].eq(-1).all()
    first = answers(small, state, teacher, quick)
    shuffled = replace(small, oracle=akd.Oracle(small.oracle.label(torch.arange(150)).flip(0), 10))
    assert torch.equal(first, answers(shuffled, state, teacher, quick))


def test_a_fully_labelled_pool_still_trains(small, teacher, quick):
    index = torch.arange(150)
    everything = akd.LabelState.empty(150).with_labels(index, small.oracle.label(index), 0)
    assert torch.isfinite(answers(small, everything, teacher, quick)).all()


def test_views_kept_or_rendered_on_demand_are_the_same_pixels(small):
    spec = akd.Views(3, augmentation=small.pool.augmentation)
    kept = ViewBank(small.pool, spec, 16, torch.device("cpu"))
    fresh = ViewBank(small.pool, spec, 16, torch.device("cpu"), budget_bytes=0)
    index, view = torch.randint(150, (40,)), torch.randint(3, (40,))
    assert kept.kept is not None
    assert fresh.kept is None
    levels = ((kept(index, view) - fresh(index, view)).abs() * 255).round()
    assert levels.max() <= 1  # the batch size may change a last bit before rounding to 8 bits
    assert (levels > 0).float().mean() < 1e-3


def test_predictions_do_not_depend_on_batches_and_change_no_state(small, state, quick):
    net = akd.train_student(small.pool, state, config=quick, device="cpu")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    whole = akd.predict(net, small.test.images, kd_weight=0.5)
    parts = akd.predict(net, small.test.images, kd_weight=0.5, batch=7)
    torch.testing.assert_close(whole.probs, parts.probs, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_predictions_include_those_of_each_head(small, state, teacher, quick):
    net = akd.train_student(small.pool, state, teacher, config=quick, device="cpu")
    both = akd.predict(net, small.test.images, kd_weight=0.3, beta=2.0)
    with torch.inference_mode():
        ce, kd = net.ce_head(both.features), net.kd_head(both.features)
    torch.testing.assert_close(both.ce_probs, ce.softmax(dim=1))
    torch.testing.assert_close(both.kd_probs, (kd / 2).softmax(dim=1))
    torch.testing.assert_close(both.probs, 0.7 * both.ce_probs + 0.3 * both.kd_probs)
    plain = akd.predict(net, small.test.images, kd_weight=0)
    assert plain.kd_probs is None
    assert plain.ce_probs is plain.probs  # no memory of its own
    assert akd.predict(net, small.test.images, kd_weight=0, distilled=True).kd_probs is not None
    assert akd.predict(net, small.test.images, kd_weight=0.5, distilled=False).kd_probs is None
    with pytest.raises(ValueError, match="kd_probs of 1 images are NaN"):
        replace(both, kd_probs=both.kd_probs.index_fill(0, torch.tensor([3]), float("nan")))


def test_mix_heads_by_hand():
    ce, kd = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    p = 1 / (1 + torch.exp(torch.tensor(-2.0)))  # softmax(kd / 0.5)
    expected = torch.stack([0.375 + 0.25 * p, 0.625 - 0.25 * p])[None]
    torch.testing.assert_close(akd.mix_heads(ce, kd, 0.25, 0.5), expected)
    assert torch.equal(akd.mix_heads(ce, kd * float("nan"), 0.0), torch.tensor([[0.5, 0.5]]))


def test_tiny_resnet_starts_from_its_pretrained_backbone():
    pretrained, fresh = (
        akd.build_student("tiny-resnet", 36, pretrained=choice) for choice in (True, False)
    )
    assert torch.equal(pretrained.ce_head.weight, fresh.ce_head.weight)
    assert not torch.equal(pretrained.backbone[0].weight, fresh.backbone[0].weight)


def test_impossible_trainings_are_refused_by_value(small, teacher, state):
    known = "known are tiny-cnn, tiny-resnet, resnet18.*did you mean resnet"
    with pytest.raises(ValueError, match=f"unknown student 'resnet9'; {known}"):
        akd.build_student("resnet9", 10)
    with pytest.raises(ValueError, match="nothing is labelled"):
        akd.train_student(small.pool, akd.LabelState.empty(150), teacher)
    with pytest.raises(ValueError, match="the teacher knows 10 classes, the pool has 2"):
        akd.train_student(replace(small.pool, classnames=("a", "b")), state, teacher)
