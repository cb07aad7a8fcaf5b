import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import activekd_lite as akd
from activekd_lite.datasets import loading as datasets
from activekd_lite.datasets import shapes
from activekd_lite.utils.seeding import generator


def tiny(labels=(0, 1, 0, 1), names=("a", "b")):
    x = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    return akd.make_dataset("tiny", x, labels, x[:2], [0, 1], names)


def test_digits_are_all_of_scikit_learns_in_a_fixed_split(digits):
    assert (len(digits.pool), len(digits.test)) == (1100, 697)
    raw = load_digits()
    both = torch.cat([digits.pool.images, digits.test.images])[:, 0].numpy()
    assert sorted(np.round(both / 255 * 16).astype(int).reshape(1797, -1).tolist()) == sorted(
        raw.images.reshape(1797, -1).tolist()
    )
    share = torch.bincount(digits.oracle.label(torch.arange(1100))) / 1100
    np.testing.assert_allclose(share, np.bincount(raw.target) / 1797, atol=0.002)


@pytest.mark.slow
def test_shapes_are_generated_once_and_balanced(shared_cache):
    first = akd.load_dataset("shapes", cache_root=shared_cache)
    written = (shared_cache / "shapes-v1.safetensors").stat().st_mtime_ns
    again = akd.load_dataset("shapes", cache_root=shared_cache)
    assert (shared_cache / "shapes-v1.safetensors").stat().st_mtime_ns == written
    assert first.pool.fingerprint() == again.pool.fingerprint()
    assert (len(first.pool), len(first.test), first.pool.num_classes) == (4000, 2000, 36)
    counts = torch.bincount(first.oracle.label(torch.arange(4000)))
    assert counts.max() - counts.min() <= 1
    assert first.pool.images.float().std(dim=(0, 2, 3)).min() > 30  # colour pictures, not blanks


@pytest.mark.slow
def test_an_incomplete_shapes_file_is_rewritten(shared_cache, tmp_path):
    whole = akd.load_dataset("shapes", cache_root=shared_cache).pool.fingerprint()
    name = "shapes-v1.safetensors"
    (tmp_path / name).write_bytes((shared_cache / name).read_bytes()[:1000])
    assert akd.load_dataset("shapes", cache_root=tmp_path).pool.fingerprint() == whole


def test_all_figures_differ():
    g = torch.Generator().manual_seed(0)
    u, v, _ = shapes.frames(1, shapes.Domain(0, 0, 0, (0.9, 0.9), 0.2), g)
    masks = [
        shapes.figure_mask(torch.tensor([i]), u, v).float().flatten()
        for i in range(len(shapes.FIGURES))
    ]
    for i, a in enumerate(masks):
        assert 0.05 < a.mean() < 0.8
        for b in masks[:i]:
            assert (a - b).abs().mean() > 0.02


def test_the_oracle_alone_knows_labels(digits):
    assert not hasattr(digits.pool, "labels")
    assert not any(
        isinstance(v, torch.Tensor) and v.dtype == torch.int64 for v in vars(digits.pool).values()
    )


def test_the_initial_set_has_shots_of_each_class(digits):
    chosen = digits.oracle.initial_indices(3, generator(0, "x"))
    assert torch.bincount(digits.oracle.label(chosen)).tolist() == [3] * 10
    assert len(chosen.unique()) == 30
    assert not torch.equal(chosen, digits.oracle.initial_indices(3, generator(1, "x")))


def test_label_state_is_never_changed():
    empty = akd.LabelState.empty(5)
    first = empty.with_labels(torch.tensor([3, 1]), torch.tensor([0, 2]), round=0)
    second = first.with_labels(torch.tensor([0]), torch.tensor([1]), round=1)
    assert empty.labeled_indices.tolist() == []
    assert first.labeled_indices.tolist() == [1, 3]
    assert second.labeled_round.tolist() == [1, 0, -1, 0, -1]
    assert second.labels.tolist() == [1, 2, -1, 0, -1]
    assert second.unlabeled_indices.tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"images \[3\] are labelled already"):
        second.with_labels(torch.tensor([4, 3]), torch.tensor([0, 0]), round=2)
    with pytest.raises(ValueError, match="named twice"):
        second.with_labels(torch.tensor([4, 4]), torch.tensor([0, 0]), round=2)


@pytest.mark.parametrize("wrong", [[-1], [1, 5], [2.0], [True, False, True, False, True]])
def test_indices_outside_the_pool_are_refused_and_label_nothing(wrong):
    oracle, state = akd.Oracle(torch.tensor([0, 1, 0, 1, 0]), 2), akd.LabelState.empty(5)
    with pytest.raises(ValueError, match="pool ind"):
        oracle.label(torch.tensor(wrong))
    with pytest.raises(ValueError, match="pool ind"):
        state.with_labels(torch.tensor(wrong), torch.zeros(len(wrong), dtype=torch.int64), 0)
    with pytest.raises(ValueError, match=r"labels \[-1\]: a class is 0 or more"):
        state.with_labels(torch.tensor([2]), torch.tensor([-1]), 0)
    assert oracle.label(torch.tensor([4, 1])).tolist() == [0, 1]


def test_a_test_set_without_images_is_refused():
    x = torch.zeros(4, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="the test set has no images"):
        akd.make_dataset("x", x, [0, 1, 0, 1], x[:0], [], ["a", "b"])


def test_an_unknown_name_is_refused_and_a_path_gets_a_suggestion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("/photos", "../../evil", "photos", "~/photos", "C:\\photos"):
        with pytest.raises(ValueError, match=re.escape(f"did you mean 'folder:{name}'?")):
            datasets.check_name(name)
    with pytest.raises(ValueError, match="did you mean 'csv:a/list.csv'?"):
        datasets.check_name("a/list.csv")
    for name in (
        "torchvision:../x",
        "torchvision:",
        "hf:x/..",
        "hf:",
        "csv:..",
        "csv:",
        "folder:",
        "folder:/",
    ):
        with pytest.raises(
            ValueError,
            match=re.escape(f"data set '{name}' names nothing that can be read; write it like"),
        ):
            datasets.check_name(name)
    for name in (
        "digits",
        "imagenet",
        "folder:..",
        "folder:/a",
        "csv:../list.csv",
        "hf:org/x.y:big",
        "torchvision:MNIST",
    ):
        datasets.check_name(name)


def test_inputs_that_do_not_fit_are_refused_by_value():
    with pytest.raises(ValueError, match="unknown data set 'digit'; choose digits, shapes"):
        akd.load_dataset("digit")
    with pytest.raises(ValueError, match="class 1 has 2 pool images, fewer than shots = 3"):
        tiny(labels=(0, 1, 0, 1, 0)).oracle.initial_indices(3, generator(0, "x"))
    with pytest.raises(ValueError, match="class 2 has 0 pool images"):
        tiny(names=("a", "b", "c")).oracle.initial_indices(1, generator(0, "x"))
    with pytest.raises(ValueError, match="labels run from 0 to 5, but there are 2 class names"):
        tiny(labels=(0, 5))
    with pytest.raises(ValueError, match=r"class names \['a'\] occur twice"):
        tiny(names=("a", "a"))
    x = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="pool: 3 images but 2 labels"):
        akd.make_dataset("x", x, [0, 1], x, [0, 1, 0], ["a", "b"])
    with pytest.raises(ValueError, match=r"\(4, 4\) torch.float32"):
        akd.Pool(torch.zeros(4, 4), ("a",))
    with pytest.raises(ValueError, match="shots = 0"):
        tiny().oracle.initial_indices(0, generator(0, "x"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_predictions_must_be_finite(bad):
    features = torch.zeros(4, 3)
    features[2, 1] = bad
    with pytest.raises(
        ValueError, match="features of 1 images are NaN or infinite, first at pool index 2"
    ):
        akd.Predictions(torch.full((4, 2), 0.5), features)


def test_predictions_must_be_probabilities_in_rows():
    good, features = torch.full((4, 2), 0.5), torch.zeros(4, 3)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        many = torch.randn(50, 1000, generator=generator(0, "logits")).softmax(dim=1).to(dtype)
        akd.Predictions(many, torch.zeros(50, 3, dtype=dtype), many)
    akd.Predictions(good[:0], features[:0])
    bad = good.clone()
    bad[2] = torch.tensor([0.5, 0.7])
    complaint = "probs of 1 images are not probabilities, first at pool index 2: they sum to 1.2"
    with pytest.raises(ValueError, match=complaint):
        akd.Predictions(bad, features)
    with pytest.raises(
        ValueError, match="teacher_probs of 1 images are not probabilities, first at pool index 2"
    ):
        akd.Predictions(good, features, bad)
    bad[2] = torch.tensor([-0.1, 1.1])
    complaint = "pool index 2: they sum to 1 and the smallest is -0.1; apply .softmax"
    with pytest.raises(ValueError, match=complaint):
        akd.Predictions(bad, features)
    with pytest.raises(
        ValueError,
        match=r"probs are \(4,\) torch.float32; 2-D floats are needed, one row per image",
    ):
        akd.Predictions(good[:, 0], features)
    with pytest.raises(ValueError, match=r"features are \(4,\)"):
        akd.Predictions(good, features[:, 0])


ONE_HOT = torch.eye(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (ONE_HOT, r"labels are \(3, 3\); one class number per image.*argmax\(1\)"),
        ([0.9, 1.9, 0.0], "label 0.9 of image 0 is not a whole number"),
        (np.array([0.0, 1.0, np.nan]), "label nan of image 2 is not a whole number"),
        ([True, False, True], "labels are torch.bool; class numbers are needed"),
        (
            ["cat", "dog", "cat"],
            "labels are not numbers .*; give each image its position in the class names",
        ),
    ],
)
def test_labels_are_whole_class_numbers(labels, complaint):
    x, names = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), ["a", "b", "c"]
    for given in ((labels, [0, 1, 2]), ([0, 1, 2], labels)):
        with pytest.raises(ValueError, match=complaint):
            akd.make_dataset("x", x, given[0], x, given[1], names)
    with pytest.raises(ValueError, match=complaint):
        akd.Oracle(labels, 3)
    with pytest.raises(ValueError, match=complaint):
        akd.LabelState.empty(5).with_labels(torch.arange(3), labels, 0)


def test_labels_of_any_integer_type_one_per_image():
    index = torch.arange(3)
    for labels in (
        [0, 1, 2],
        np.array([0, 1, 2], np.uint8),
        torch.tensor([0.0, 1.0, 2.0]),
        [np.int64(0), 1, 2],
    ):
        assert akd.Oracle(labels, 3).label(index).tolist() == [0, 1, 2]
        assert akd.LabelState.empty(4).with_labels(index, labels, 0).labels.tolist() == [
            0,
            1,
            2,
            -1,
        ]
    with pytest.raises(ValueError, match="3 images but 1 labels"):
        akd.LabelState.empty(4).with_labels(index, [0], 0)


def test_a_list_of_images_is_refused():
    x = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(
        ValueError, match=r"pool images are a list; one tensor or array .* torch.stack or np.stack"
    ):
        akd.make_dataset("x", list(x), [0, 1, 0], x, [0, 1, 0], ["a", "b"])


@pytest.mark.parametrize("value", [1.7, 1.0, True, "1", None, float("nan")])
def test_seeds_and_shots_are_whole(digits, value):
    for name in ("seed", "shots"):
        with pytest.raises(ValueError, match=f"{name} = {value!r}: a whole number is needed"):
            akd.run_active_learning(digits, rounds=0, progress=False, **{name: value})
        with pytest.raises(ValueError, match=f"{name} = {value!r}: a whole number is needed"):
            akd.RunConfig(**{name: value})
        assert type(getattr(akd.RunConfig(**{name: np.int64(2)}), name)) is int


def test_a_teacher_is_not_made_from_text():
    with pytest.raises(ValueError, match="logits = 'x' are not numbers"):
        akd.teacher.from_logits("x")


def test_a_subset_of_the_pool_is_the_same_every_time(digits):
    part, again = (akd.load_dataset("digits", pool_size=200) for _ in range(2))
    assert part.pool.fingerprint() == again.pool.fingerprint()
    rows = [
        int((digits.pool.images == image).all(dim=(1, 2, 3)).nonzero()[0])
        for image in part.pool.images[:20]
    ]
    assert rows == sorted(rows)
    assert torch.equal(part.oracle.label(torch.arange(20)), digits.oracle.label(torch.tensor(rows)))
    with pytest.raises(ValueError, match="pool_size = 1101, but the data set has 1100"):
        akd.load_dataset("digits", pool_size=1101)


def test_a_pool_per_seed_is_added_to_the_first_labels():
    first, again, other = (
        akd.load_dataset("digits", pool_size=30, pool_seed=seed, pool_shots=2) for seed in (1, 1, 2)
    )
    assert first.pool.fingerprint() == again.pool.fingerprint() != other.pool.fingerprint()
    for data in (first, other):
        assert len(data.pool) == 30 + 2 * 10
        assert data.oracle.label(torch.arange(50)).bincount(minlength=10).min() >= 2
    with pytest.raises(
        ValueError,
        match="has 1080 images to draw from in addition to 2 per class; choose 1 to 1080",
    ):
        akd.load_dataset("digits", pool_size=1081, pool_shots=2)
