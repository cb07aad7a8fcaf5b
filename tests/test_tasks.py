"""Tasks made from the embedded data sets by a spec, such as "shapes?by=figure&classes=8"."""

import contextlib
import re
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import activekd_lite as akd
from activekd_lite.datasets import alterations, embedded, shapes
from activekd_lite.datasets.spec import KEYS, TaskSpec, canonical_name, parse
from activekd_lite.experiments.grid import Grid, run_folder
from activekd_lite.pool import images_sha256


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`load(name)`: a task, of which `shapes` has 90 test images to draw instead of 2,000."""
    monkeypatch.setitem(embedded.SHAPES_PARTS, "test", (90, 1))
    return lambda name, **more: akd.load_dataset(name, cache_root=tmp_path, **more)


def labels_of(data):
    return data.oracle.label(torch.arange(len(data.pool)))


def fingerprints(data):
    return data.pool.fingerprint(), data.oracle.fingerprint(), data.test.fingerprint()


# What version 0.2 loaded. Drawing rounds differently on other processors.
SAME_PROCESSOR = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX2", reason="the sums are those of AVX2"
)
DIGITS = (
    "8876192023d662a8dbd84a6cec297a93cf520ecaaecd1c71ec191709ef473562",
    "b360953e6a0f5fc2f456c271961aaba4672d6dc6ff6a0e30fd6dfda6bc6e6a57",
    {
        "images": "8c3a8cea621870d1fa1bda0b52507fc6c69406832d305b62f764de7c81e90f68",
        "labels": "52cbfa3c665fcb99eff52f2491ab7d273bbf1738e40b467920104509ff1f291e",
    },
)
SHAPES = (
    "f845b136d3ff4ae3e2096f00436917f4d6f872a67c185d07e4eacda69dccc994",
    "a88c29d4c3756fb0a18e79de3588a1ccfafa5625fe83225484d26eda8e647425",
    {
        "images": "dfd5de9f6717fe2b9cb9a4827fe424b740c3e9617035501dcf2a656347484022",
        "labels": "5785b3a0c8c8d181c813190d463bf17478a19d964ce51a02582333a2ecb1c65b",
    },
)
FIRST_SHAPES = "19dcdc2d70cf4bc2bd9d995f5cf1d58c6ddf209ed5df05734a2180b818465946"


def test_digits_are_bit_equal_to_those_before_specs():
    assert fingerprints(akd.load_dataset("digits")) == DIGITS
    assert fingerprints(akd.load_dataset("digits?classes=10&pool=1100")) == DIGITS


@SAME_PROCESSOR
def test_drawn_shapes_are_bit_equal_to_those_before_specs():
    assert images_sha256(shapes.make_shapes(40, seed=0)[0]) == FIRST_SHAPES


@SAME_PROCESSOR
@pytest.mark.slow
def test_shapes_are_bit_equal_to_those_before_specs(shared_cache):
    assert fingerprints(akd.load_dataset("shapes", cache_root=shared_cache)) == SHAPES


def test_the_usual_task_is_drawn_in_the_same_way_as_any_other():
    sizes = alterations.class_sizes(100, 36)
    task = shapes.make_task(("figure", "pattern"), torch.arange(36), sizes, seed=3)
    for made, expected in zip(task, shapes.make_shapes(100, seed=3), strict=True):
        assert torch.equal(made, expected)
    assert shapes.classes_by(("figure", "pattern"))[0] == shapes.CLASSNAMES


@st.composite
def specs(draw):
    """The values of a spec by key, as they may be written."""
    family = draw(st.sampled_from([*KEYS]))
    attributes = st.permutations([*shapes.ATTRIBUTES])
    share = st.sampled_from(["0", "0.0", "0.1", "0.10", "0.25", "0.3333"])
    values = {
        "by": st.integers(1, 4).flatmap(lambda n: attributes.map(lambda a: "+".join(a[:n]))),
        "classes": st.integers(2, 12).map(str),
        "imbalance": st.sampled_from(["1", "1.0", "2.5", "20", "20.0"]),
        "shift": st.sampled_from([*shapes.SHIFTS]),
        "noise": share,
        "duplicates": share,
        "pool": st.sampled_from(["300", "1100", "4000", "04000"]),
    }
    keys = draw(st.sets(st.sampled_from(KEYS[family])))
    return family, {key: draw(values[key]) for key in sorted(keys)}


@settings(max_examples=80, deadline=None)
@given(specs(), st.randoms(use_true_random=False))
def test_two_spellings_of_a_task_are_one(spec, random):
    family, values = spec
    parts = [f"{key}={value}" for key, value in values.items()]
    try:
        task = parse("?".join(filter(None, [family, "&".join(parts)])))
    except ValueError:
        assume(False)
    random.shuffle(parts)
    again = parse("?".join(filter(None, [family, "&".join(parts)])))
    assert again == task == parse(task.name)
    assert canonical_name(task.name) == task.name == again.name
    assert sum(task.class_sizes or [1100]) == (task.pool or sum(task.class_sizes or [1100]))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    name = f"shapes?{text}"
    with contextlib.suppress(ValueError):  # any other error would be a defect
        assert canonical_name(parse(name).name) == parse(name).name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("shapes?by=pattern+figure&classes=36&shift=today&noise=0", "shapes"),
        ("shapes?noise=0.10&by=colour+size", "shapes?by=size+colour&noise=0.1"),
        ("digits?imbalance=20.0&duplicates=0", "digits?imbalance=20"),
        ("digits?imbalance=20&pool=364", "digits?imbalance=20"),
        ("digits?pool=1100", "digits"),
        ("digits?classes=5&pool=400", "digits?classes=5&pool=400"),
        ("folder:/my/shapes?by=figure", "folder:/my/shapes?by=figure"),
    ],
)
def test_defaults_and_order_do_not_matter(written, name):
    assert canonical_name(written) == name


def test_equal_specs_are_one_run_one_folder_and_one_entry_of_a_grid(tmp_path):
    one, two = "shapes?noise=0.1&by=pattern+figure&classes=8", "shapes?classes=8&noise=0.10"
    assert akd.RunConfig(one) == akd.RunConfig(two)
    folder = run_folder("out", one, "random", True, 0)
    assert folder == run_folder("out", two, "random", True, 0)
    assert folder.parts[1] == "shapes-classes=8&noise=0.1"
    with pytest.raises(ValueError, match="is repeated"):
        Grid(datasets=[one, two])
    rule = {"dataset": two, "strategy": "random"}
    grid = Grid(datasets=[one, "digits"], strategies=["random", "margin"], exclude=[rule])
    runs = [run.config for run in grid.runs().values()]
    assert ("shapes?classes=8&noise=0.1", "random") not in {(r.dataset, r.strategy) for r in runs}
    assert len(runs) == 2 * (2 + 2) - 2


def test_grids_in_yaml_name_tasks(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("datasets:\n  - digits\n  - shapes?classes=8&by=figure\n")
    assert [*Grid.read(path).datasets] == ["digits", "shapes?by=figure&classes=8"]
    path.write_text("datasets: [shapes?by=figure]\n")
    with pytest.raises(ValueError, match=r"a name with \? needs quotes"):
        Grid.read(path)
    path.write_text("datasets: ['shapes?by=figre']\n")
    with pytest.raises(ValueError, match=r"by = 'figre', did you mean figure\?"):
        Grid.read(path)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("shapes?", "'' is not a setting; write key=value, joined by &"),
        ("shapes?clases=8", "no setting 'clases', did you mean classes? choose from by, classes"),
        ("digits?by=figure", "digits has no setting 'by'; choose from classes, imbalance"),
        ("shapes?classes=8&classes=9", "classes is given twice"),
        ("shapes?classes=8.0", "classes = '8.0': a whole number is needed"),
        ("shapes?classes=37", "classes = 37: there are 36 by figure and pattern; choose 2 to 36"),
        ("shapes?by=pattern&classes=4", "there are 3 by pattern; choose 2 to 3"),
        ("shapes?by=color", "by = 'color', did you mean colour? choose from size, colour"),
        ("shapes?by=figure+figure", "name one attribute or several different ones"),
        ("shapes?shift=harder", "shift = 'harder', did you mean hard? choose from easy, today"),
        ("shapes?noise=nan", "noise = 'nan': a number with at most four decimals is needed"),
        ("shapes?noise=1", "noise = 1 is not a share of the pool; choose 0 to 0.99"),
        ("shapes?imbalance=0.5", "imbalance = 0.5: it is the size of the largest class"),
        ("shapes?pool=100000", "pool = 100000: shapes has 1 to 50000 images"),
        ("shapes?imbalance=50&pool=400", "give the rarest class 1 images; at least 2 are needed"),
        ("digits?pool=1090", "109 images, but digits has 107 of each; choose a pool of 1070"),
        ("digits?duplicates=0.99&pool=50", "leaves 0 originals for 10 classes in a pool of 50"),
        ("dtd?classes=5", "only digits and shapes take settings"),
        ("iris?classes=2", "unknown data set 'iris?classes=2'"),
    ],
)
def test_impossible_tasks_are_refused_by_name(name, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)) as error:
        akd.load_dataset(name)
    assert repr(name) in str(error.value)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Grid(datasets=[name])


def test_a_spec_made_in_python_has_only_settings_of_its_family():
    assert TaskSpec("digits", classes=5) == parse("digits?classes=5")
    with pytest.raises(ValueError, match="digits has no setting 'shift'; choose from classes"):
        TaskSpec("digits", shift="hard")
    with pytest.raises(ValueError, match="family = 'dtd'; choose shapes or digits"):
        TaskSpec("dtd")


def test_a_task_is_the_same_every_time_and_stored_once(load, tmp_path):
    name = "shapes?by=figure&classes=5&imbalance=4&noise=0.2&duplicates=0.3&pool=60"
    first = load(name)
    files = sorted(tmp_path.glob("*.safetensors"))
    written = [path.stat().st_mtime_ns for path in files]
    assert fingerprints(load(name)) == fingerprints(first)
    assert [path.stat().st_mtime_ns for path in files] == written
    for path in files:
        path.unlink()
    assert fingerprints(load(name)) == fingerprints(first)
    assert (first.name, len(first.pool)) == (parse(name).name, 60)
    assert len(load(name, pool_size=20).pool) == 20


@settings(max_examples=50, deadline=None)
@given(st.integers(100, 5000), st.integers(2, 40), st.floats(1, 100))
def test_class_sizes_fall_geometrically(total, count, ratio):
    sizes = alterations.class_sizes(total, count, ratio)
    assert sum(sizes) == total
    smallest = total / sum(ratio ** (i / (count - 1)) for i in range(count))
    assert abs(sizes[-1] - smallest) <= 1
    assert abs(sizes[0] - smallest * ratio) <= 1
    assert all(a >= b - 1 for a, b in pairwise(sizes))


@pytest.mark.parametrize("name", ["shapes?by=pattern&imbalance=8&pool=200", "digits?imbalance=20"])
def test_imbalance_is_the_ratio_of_the_largest_class_to_the_smallest(load, name):
    data = load(name)
    counts = torch.bincount(labels_of(data))
    largest, smallest = int(counts.max()), int(counts.min())
    asked = parse(name).imbalance
    assert (largest - 0.5) / (smallest + 0.5) <= asked <= (largest + 0.5) / (smallest - 0.5)
    assert counts.argmax() != 0 or counts.argmin() != len(counts) - 1  # not in the order of names
    tested = torch.bincount(data.test.labels)
    assert tested.max() / tested.min() < 1.1


@pytest.mark.parametrize("name", ["digits", "shapes?by=size+colour&pool=200"])
def test_noise_is_a_share_of_wrong_labels_in_the_pool_alone(load, name):
    noisy = f"{name}{'&' if '?' in name else '?'}noise=0.1"
    clean, data = load(name), load(noisy)
    wrong = labels_of(clean) != labels_of(data)
    assert int(wrong.sum()) == round(0.1 * len(data.pool))
    assert data.pool.fingerprint() == clean.pool.fingerprint()
    assert data.test.fingerprint() == clean.test.fingerprint()
    steps = (labels_of(data) - labels_of(clean))[wrong] % data.pool.num_classes
    assert len(steps.unique()) > data.pool.num_classes / 2  # to any class, not to the next


@pytest.mark.parametrize("name", ["digits", "shapes?by=figure&classes=4&pool=200"])
def test_duplicates_are_near_copies_of_other_images_of_their_class(load, name):
    clean, data = load(name), load(f"{name}{'&' if '?' in name else '?'}duplicates=0.3")
    before, after = (x.pool.images.float().flatten(1) for x in (clean, data))
    copies = (before != after).any(dim=1)
    assert int(copies.sum()) == round(0.3 * len(data.pool))
    assert torch.equal(labels_of(clean), labels_of(data))
    assert data.test.fingerprint() == clean.test.fingerprint()
    distance = torch.cdist(after[copies], after[~copies])
    nearest, source = distance.min(dim=1)
    assert torch.equal(labels_of(data)[~copies][source], labels_of(data)[copies])
    others = torch.cdist(after[~copies], after[~copies]).fill_diagonal_(torch.inf).min(dim=1).values
    assert nearest.median() < 0.6 * others.median()
    assert nearest.min() > 0  # near, not equal


def test_fewer_classes_are_a_subset_of_more(load):
    few, more = (load(f"digits?classes={n}") for n in (3, 6))
    assert set(few.classnames) < set(more.classnames) < set(load("digits").classnames)
    digit = torch.tensor([int(name) for name in few.classnames])[few.test.labels]
    everything = load("digits").test
    kept = torch.isin(everything.labels, digit.unique())
    assert torch.equal(digit, everything.labels[kept])
    assert torch.equal(few.test.images, everything.images[kept])


BY = ["+".join(names) for n in (1, 2, 3, 4) for names in combinations(shapes.ATTRIBUTES, n)]


def test_class_names_and_prompts_are_words_that_the_teacher_knows(vlm):
    for by in BY:
        spec = TaskSpec("shapes", tuple(by.split("+")), pool=50_000)
        names, values = shapes.classes_by(spec.by)
        assert len(set(names)) == len(values) == spec.all_classes
        assert vlm.unknown_words(names) == []


def test_prompts_suit_the_task(load):
    colours = load("shapes?by=colour&classes=3&pool=30")
    assert set(colours.classnames) < set(shapes.COLOURS)
    assert colours.templates == ("a photo of a {} shape.",)
    figures = load("shapes?by=size+figure&classes=4&pool=30")
    assert all(name.split()[0] in shapes.SIZES for name in figures.classnames)
    assert figures.templates == ("a photo of a {}.",)
    assert figures.pool.augmentation.scale[0] > colours.pool.augmentation.scale[0]


def test_images_have_the_attributes_of_their_class():
    count, g = 60, torch.Generator().manual_seed(0)
    values = {"colour": torch.arange(count) % 10, "size": torch.arange(count) % 2}
    zeros = torch.zeros(count, dtype=torch.int64)
    images, found = shapes.draw(zeros, zeros, shapes.TARGET, g, **values)
    assert torch.equal(found["colour"], values["colour"])
    for place, (low, high) in enumerate(shapes.SIZES.values()):
        radius = found["radius"][values["size"] == place]
        assert low <= radius.min() <= radius.max() <= high
    chosen = torch.tensor([8, 9])  # black and white
    names, _ = shapes.classes_by(("colour",))
    images, labels = shapes.make_task(("colour",), chosen, [40, 40], 0, shapes.PRETRAINING)
    centre = images.float().mean(dim=(1, 2, 3))
    assert [names[c] for c in chosen] == ["black", "white"]
    assert centre[labels == 0].mean() < centre[labels == 1].mean()


def test_a_shift_changes_the_images_alone(load):
    easy, today, hard = (load(f"shapes?by=pattern&pool=40&shift={s}") for s in shapes.SHIFTS)
    assert torch.equal(labels_of(easy), labels_of(today))
    assert torch.equal(labels_of(hard), labels_of(today))
    assert len({x.pool.fingerprint() for x in (easy, today, hard)}) == 3
