"""Views of photographs, compared with torchvision's and open_clip's transforms of PIL images."""

import math

import numpy as np
import open_clip
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

import activekd_lite as akd
from activekd_lite.banks import ViewBank
from activekd_lite.utils import images
from activekd_lite.utils.images import ImageFiles, read_images, stream_centers, stream_views
from activekd_lite.utils.photos import LONGEST, Photo, read_photo, render_photo
from activekd_lite.utils.views import Views, all_views, boxes, crop, pixels

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
CPU = torch.device("cpu")


def scene(width, height, seed=0):
    """A picture with what photographs have: smooth colours, hard edges, fine texture and noise."""
    g = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(width, height)
    bands = [np.sin(a * x + b * y + c) for a, b, c in g.uniform(0.5, 6, (3, 3)).astype(np.float32)]
    picture = 128 + 70 * np.stack(bands, axis=2)
    for _ in range(6):
        cx = g.uniform(0, width / min(width, height))
        cy = g.uniform(0, height / min(width, height))
        r = g.uniform(0.1, 0.4)
        picture[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = g.uniform(0, 255, 3)
    picture += 25 * np.sign(np.sin(90 * x) * np.sin(70 * y))[..., None] * (x < 0.5)[..., None]
    picture += 8 * g.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Pictures of eight shapes, larger and smaller than their reduced copies."""
    folder = tmp_path_factory.mktemp("album")
    shapes = [(400, 300), (300, 400), (500, 100), (30, 20), (150, 150), (90, 450)]
    shapes += [(640, 480), (401, 299)]
    for i, shape in enumerate(shapes):
        scene(*shape, i).save(folder / f"{i}.{'jpg' if i % 2 else 'png'}", quality=92)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (500, 100), (30, 20), (7, 5)])
def test_a_crop_is_torchvisions_pixel_for_pixel(shape, mode):
    picture, spec = scene(*shape), Views(41, augmentation=akd.Augmentation(scale=(0.08, 1)))
    flips = 0
    for view in range(1, 41):
        top, left, height, width, flip = box = crop(spec, 3, view, *shape)
        expected = TF.resized_crop(
            picture, top, left, height, width, [64, 64], InterpolationMode(mode), antialias=True
        )
        expected = TF.hflip(expected) if flip else expected
        got = render_photo(Photo(picture, *shape), box, 64, mode)
        np.testing.assert_array_equal(got, np.asarray(expected).transpose(2, 0, 1))
        flips += flip
    assert 5 < flips < 35


@pytest.mark.parametrize("scale", [(0.5, 1.0), (0.08, 1.0)])
@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (500, 100), (256, 256)])
def test_crops_are_distributed_as_torchvisions(shape, scale):
    """Area, aspect ratio and centre of 4,000 crops each: two-sample Kolmogorov-Smirnov tests."""
    spec, count = Views(2, augmentation=akd.Augmentation(scale=scale)), 4000
    ours = np.array([crop(spec, i, 1, *shape)[:4] for i in range(count)], dtype=float)
    blank = Image.new("RGB", shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        limits = (blank, list(scale), [3 / 4, 4 / 3])
        theirs = [RandomResizedCrop.get_params(*limits) for _ in range(count)]
    for name, measure in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "row": lambda b: b[:, 0] + b[:, 2] / 2,
        "column": lambda b: b[:, 1] + b[:, 3] / 2,
    }.items():
        found = stats.ks_2samp(measure(ours), measure(np.array(theirs, dtype=float)))
        assert found.pvalue > 0.005, (name, found)
    assert (ours[:, 0] + ours[:, 2]).max() <= shape[1]
    assert (ours[:, 1] + ours[:, 3]).max() <= shape[0]
    flips = np.array([crop(spec, i, 1, *shape)[4] for i in range(count)])
    assert abs(flips.mean() - 0.5) < 0.03


def test_crops_reach_outside_the_centred_square():
    spec = Views(2)
    lefts = [crop(spec, i, 1, 400, 300)[1] for i in range(200)]
    assert min(lefts) < 10  # the square begins at 50
    # 1:5 has no crop of half its area: it is central, as torchvision's
    assert {crop(spec, i, 1, 500, 100)[:4] for i in range(20)} == {(0, 183, 100, 133)}


@pytest.mark.parametrize(
    ("shape", "suffix", "orientation"),
    [
        ((400, 300), "png", 1),
        ((300, 400), "jpg", 1),
        ((500, 100), "jpg", 1),
        ((100, 500), "png", 1),
        ((20, 30), "jpg", 1),
        ((4000, 3000), "jpg", 1),
        ((401, 299), "jpg", 6),
        ((299, 401), "png", 3),
        ((640, 480), "jpg", 5),
    ],
)
def test_the_centre_view_is_open_clips_preprocessing(shape, suffix, orientation, tmp_path):
    interpolation = "bilinear" if orientation == 3 else "bicubic"
    path = tmp_path / f"a.{suffix}"
    large = max(shape) > 1000
    picture = scene(1000, 750).resize(shape, Image.Resampling.NEAREST) if large else scene(*shape)
    picture.save(path, quality=92, exif=exif(orientation))
    standard = open_clip.image_transform(
        224, is_train=False, mean=MEAN, std=STD, interpolation=interpolation
    )
    with Image.open(path) as picture:
        expected = standard(ImageOps.exif_transpose(picture)) * torch.tensor(STD)[:, None, None]
    expected += torch.tensor(MEAN)[:, None, None]
    (got,) = stream_centers(read_images([path]), 1, 224, interpolation, reduced=False)
    assert (got[0] - expected).abs().max() <= 2 / 255


def test_the_zero_shot_teacher_sees_the_files_as_open_clip_does(album, vlm):
    standard = open_clip.image_transform(
        vlm.input_size, is_train=False, mean=vlm.mean, std=vlm.std, interpolation=vlm.interpolation
    )
    x = torch.stack([standard(Image.open(path)) for path in album])
    weights = vlm.text_weights(["circle", "square", "star"])
    with torch.inference_mode():
        features = vlm.model.encode_image(x, normalize=True)
        expected = (vlm.logit_scale * features @ weights).softmax(dim=1)
    for budget in (2**31, 0):
        got = vlm.zero_shot_probs(read_images(album, 64, budget_bytes=budget), weights)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_student_gets_the_same_pixels_whether_or_not_images_are_held(album, monkeypatch):
    held, files = read_images(album, 64), read_images(album, 64, budget_bytes=1000)
    assert held.held is not None
    assert files.held is None
    assert held.fingerprint() == files.fingerprint()
    spec = Views(5, seed=2)
    batches = [all_views(torch.arange(8), 5), (torch.tensor([3, 3, 1]), torch.tensor([4, 0, 2]))]
    for few in (100, 3):  # in this process, then in workers
        monkeypatch.setattr(images, "FEW", few)
        streams = (x.stream(batches, spec, 32) for x in (held, files))
        assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))
    pools = [akd.Pool(x, ("a",)) for x in (held, files)]
    banks = [ViewBank(pool, spec, 32, CPU, budget) for pool in pools for budget in (2**30, 0)]
    rendered = [bank(*batches[0]) for bank in banks]
    assert all(torch.equal(rendered[0], x) for x in rendered)
    assert [bank.kept is None for bank in banks] == [False, True] * 2


def test_teacher_and_student_see_the_same_part_of_a_picture(album):
    """Colours encode the position; the two sizes differ, and only the student's is reduced."""
    width, height = 800, 600
    y, x = np.mgrid[0:height, 0:width]
    places = np.stack([255 * x / width, 255 * y / height, np.zeros_like(x)], axis=2)
    path = album[0].parent / "places.png"
    Image.fromarray(places.round().astype(np.uint8)).save(path)
    spec, pairs = Views(60), [all_views(torch.tensor([0]), 60)]
    files = ImageFiles([path], 100)
    (teacher,) = stream_views(files, pairs, spec, 224, "bicubic", reduced=False)
    (student,) = stream_views(files, pairs, spec, 56)
    difference = (torch.nn.functional.avg_pool2d(teacher, 4) - student).abs()[:, :2]
    assert difference[1:, :, 2:-2, 2:-2].max() < 2.5 / 255
    for view in range(1, 60):
        top, left, _, w, flip = crop(spec, 0, view, width, height)
        first, last = (left + w, left) if flip else (left, left + w)
        middle = teacher[view, 0, 112]
        assert abs(middle[0] - first / width) < 0.02
        assert abs(middle[-1] - last / width) < 0.02
        assert abs(teacher[view, 1, 0, 112] - top / height) < 0.02
    path.unlink()


@pytest.mark.parametrize("side", [None, 60])
@pytest.mark.parametrize("kind", ["png", "tif"])  # Pillow itself turns a TIFF upright
@pytest.mark.parametrize("orientation", range(1, 9))
def test_crops_are_drawn_for_the_upright_picture(orientation, side, kind, tmp_path):
    picture, spec = scene(200, 90), Views(6)
    picture.save(tmp_path / f"a.{kind}", exif=exif(orientation))
    with Image.open(tmp_path / f"a.{kind}") as turned:
        ImageOps.exif_transpose(turned).save(tmp_path / "b.png")
    photos = [read_photo(tmp_path / name, side) for name in (f"a.{kind}", "b.png")]
    got, expected = (
        [render_photo(p, crop(spec, 0, view, p.width, p.height), 32) for view in range(6)]
        for p in photos
    )
    np.testing.assert_array_equal(got, expected)


def test_pictures_are_reduced_but_never_enlarged(album, tmp_path):
    for path in album:
        photo = read_photo(path, 120)
        with Image.open(path) as image:
            whole = image.size
        assert (photo.width, photo.height) == whole
        assert min(photo.image.size) == min(120, *whole)
        ratio = photo.image.width / photo.image.height
        assert math.isclose(ratio, whole[0] / whole[1], rel_tol=0.01)


def test_a_picture_that_is_too_long_loses_its_ends(tmp_path, largest_allocation):
    path = tmp_path / "thread.png"
    row = np.arange(6000, dtype=np.uint16).astype(np.uint8)
    Image.fromarray(row[None, :].repeat(2, axis=0)).save(path)
    photo = read_photo(path)
    assert photo.image.size == (photo.width, photo.height) == (2 * LONGEST, 2)
    assert (np.asarray(photo.image)[0, :, 0] == row[3000 - LONGEST : 3000 + LONGEST]).all()
    files = read_images([path])
    with largest_allocation as seen:
        (x,) = files.stream([all_views(torch.tensor([0]), 3)], Views(3), 224)
    assert x.shape == (3, 3, 224, 224)
    assert seen.bytes < 20 * 2**20
    # crops have at least half the area, so the ends are never seen, whatever the aspect ratio
    spec, w, h = Views(2), 30 * 100, 100
    top, left, height, width, _ = crop(spec, 0, 1, w, h)
    left -= (w - LONGEST * h) // 2
    assert crop(spec, 0, 1, LONGEST * h, h)[:4] == (top, left, height, width)


def test_held_pictures_are_counted_while_they_are_read(album, monkeypatch):
    need = sum(3 * math.prod(read_photo(path, 64).image.size) for path in album)
    assert ImageFiles(album, 64).hold(need)
    assert not ImageFiles(album, 64).hold(need - 1)
    # as if the headers of the sample promised too little
    monkeypatch.setattr(ImageFiles, "_estimated_bytes", lambda self: 0)
    assert not ImageFiles(album, 64).hold(need - 1)
    assert ImageFiles(album, 64).hold(need)


def test_memory_is_bounded_while_many_large_files_are_streamed(
    tmp_path, largest_allocation, monkeypatch
):
    monkeypatch.setattr(images, "FEW", 1000)  # in this process, whose allocations are seen
    paths = [tmp_path / f"{i}.jpg" for i in range(3)]
    for path in paths:
        scene(1200, 900).save(path)
    files = ImageFiles(paths * 16)
    batches = [(rows, torch.ones_like(rows)) for rows in torch.arange(48).split(8)]
    with largest_allocation as seen:
        for x in files.stream(batches, Views(2), 224):
            assert x.shape == (8, 3, 224, 224)
    assert seen.bytes < 30 * 2**20  # all of them have 156 MB of pixels


def test_a_picture_is_decoded_once_for_all_of_its_views_in_a_batch(album, monkeypatch):
    read = []

    def noted(file, side):
        read.append(file)
        return read_photo(file, side)

    monkeypatch.setattr(images, "read_photo", noted)
    files, (index, view) = ImageFiles(album, 64), all_views(torch.arange(8), 6)
    (together,) = files.stream([(index, view)], Views(6), 24)
    assert sorted(read) == album
    shuffled = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    (other,) = files.stream([(index[shuffled], view[shuffled])], Views(6), 24)
    assert torch.equal(other, together[shuffled])


def test_a_cache_of_other_pixels_is_refused_with_the_reason(album, vlm, tmp_path):
    """A cache of centre squares, as older versions made: a tensor of the same files."""
    files = akd.Pool(read_images(album, 64), ("a", "b"))
    squares = akd.Pool(files.images[:], ("a", "b"))
    old = akd.TeacherCache.build(vlm, squares, 2, tmp_path, progress=False)
    match = r'pool: .*; rendering: null stored, "whole pictures, .* requested'
    with pytest.raises(ValueError, match=match):
        akd.TeacherCache.open(old.path, pool=files)
    new = akd.TeacherCache.build(vlm, files, 2, tmp_path, progress=False)
    assert new.path != old.path
    assert akd.TeacherCache.open(new.path, pool=files).path == new.path
    assert "rendering" not in old.fingerprint


class Snaps(torchvision.datasets.FakeData):
    """A torchvision data set of pictures that differ in size, or of small equal squares."""

    classes, shapes = ["a_b", "c"], [(60, 40), (40, 60), (50, 50)]

    def __init__(self, root, train=True, download=False):
        self.count = 12 if train else 6

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return scene(*self.shapes[i % len(self.shapes)], i), i % 2


def test_torchvisions_photographs_stay_whole_and_its_squares_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "Snaps", Snaps, raising=False)
    data = akd.load_dataset("torchvision:Snaps", tmp_path)
    assert (len(data.pool), len(data.test), data.classnames) == (12, 6, ("a b", "c"))
    photo = data.pool.images._photo(1, reduced=False)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(scene(40, 60, 1)))
    again = akd.load_dataset("torchvision:Snaps", tmp_path, budget_bytes=0)
    assert data.pool.fingerprint() == again.pool.fingerprint()
    monkeypatch.setattr(Snaps, "shapes", [(32, 32)])
    data = akd.load_dataset("torchvision:Snaps", tmp_path)
    assert isinstance(data.pool.images, torch.Tensor)
    third = data.pool.images[3].permute(1, 2, 0)
    np.testing.assert_array_equal(third, np.asarray(scene(32, 32, 3)))


@pytest.mark.parametrize("source", ["folder", "csv", "dtd", "hf", "torchvision"])
def test_every_source_of_files_shows_more_than_the_square(source, tmp_path, monkeypatch):
    """Pictures of 3:1, blue in the middle third and red outside, so the centre square is blue."""
    picture = Image.new("RGB", (90, 30), (255, 0, 0))
    picture.paste((0, 0, 255), (30, 0, 60, 30))
    numbers = [("train", i) for i in range(8)] + [("test", i) for i in range(4)]
    rows = [(f"c{i % 2}/{part}{i}.png", i % 2, part) for part, i in numbers]
    root = tmp_path / "dtd" / "images"
    for path, _, _ in rows:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / path)
    lines = [f"images/{path},c{label},{part}" for path, label, part in rows]
    (root.parent / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    split = {
        part: [[path, label, f"c{label}"] for path, label, p in rows if p == part]
        for part in ("train", "val", "test")
    }
    (root.parent / "split_zhou_DescribableTextures.json").write_text(str(split).replace("'", '"'))
    monkeypatch.setattr(torchvision.datasets, "Snaps", Snaps, raising=False)
    monkeypatch.setattr(Snaps, "__getitem__", lambda self, i: (picture, i % 2))
    names = {"folder": f"folder:{root}", "csv": f"csv:{root.parent / 'list.csv'}", "dtd": "dtd"}
    names |= {"hf": f"hf:{root}", "torchvision": "torchvision:Snaps"}
    data = akd.load_dataset(names[source], tmp_path)
    wide = akd.Augmentation(scale=(0.2, 0.3))
    spec, pairs = Views(10, augmentation=wide), [all_views(torch.arange(8), 10)]
    (views,) = stream_views(data.pool.images, pairs, spec, 16)
    assert views[:8, 2, :, 1:-1].min() == 1  # the centre views, without their edges
    assert views[8:, 0].amax(dim=(1, 2)).mean() > 0.5  # red
    assert data.test.images.shape[0] >= 2


# Sums over views of `digits`, computed before photographs had views of their own
BOXES = {
    (8, 8): [0.3022751, 0.5107228, 11.0888384, 10.9852912, 0.0],
    (20, 30): [0.0, 1.7080072, 12.0, 8.519963, 0.0],
}
# fmt: off
PIXELS = {
    "bilinear": [-1.2909, 1.6045, 1.9716, -0.3043, 0.04, 2.5168, -0.5287, 1.0392, 0.0314, -0.8829,
                 0.7766, 1.2596],
    "bicubic": [-1.6909, 1.6045, 1.9716, -0.3043, -0.438, 2.5168, -0.5287, 1.0392, 0.0771, -0.8829,
                0.7766, 1.2596],
}
# fmt: on


def test_views_of_tensors_have_not_changed(digits):
    """Published runs depend on them."""
    spec, ids = Views(4, seed=3, augmentation=digits.pool.augmentation), torch.arange(12)
    weights = torch.arange(3 * 20 * 20).double().mul(0.7).cos().reshape(3, 20, 20)
    for shape, expected in BOXES.items():
        total = boxes(spec, ids, ids % 4, *shape).double().sum(dim=0)
        assert total.tolist() == pytest.approx(expected, abs=1e-6)
    for mode, expected in PIXELS.items():
        x = pixels(spec, digits.pool.images[:12], ids, ids % 4, 20, mode)
        assert (x * weights).sum(dim=(1, 2, 3)).tolist() == pytest.approx(expected, abs=1e-3)
        order = torch.tensor([7, 2, 7, 11, 0])  # training batches repeat images in any order
        batch = (ids[order], ids[order] % 4)
        (streamed,) = stream_views(digits.pool.images, [batch], spec, 20, mode)
        torch.testing.assert_close(streamed, x[order], atol=1e-6, rtol=0)
