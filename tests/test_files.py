"""Data sets of files: image formats, folder layouts, and the error messages."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import types
import warnings
from dataclasses import replace

import datasets as hf
import numpy as np
import pytest
import torch
from PIL import Image

import activekd_lite as akd
from activekd_lite import cli
from activekd_lite.cli.notebooks import parse_value
from activekd_lite.datasets import sources
from activekd_lite.utils import files, images
from activekd_lite.utils.images import ImageFiles, damaged, read_images
from activekd_lite.utils.photos import read_photo

RED, GREEN, BLUE, WHITE = (220, 20, 30), (20, 200, 40), (10, 30, 230), (255, 255, 255)


def picture(size=(40, 30), colour=RED, mode="RGB"):
    return Image.new("RGB", size, colour).convert(mode)


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def shown(path, side=16):
    """The centred square."""
    return ImageFiles([path], side)[0]


def centre(path, side=16):
    return shown(path, side)[:, side // 2, side // 2].tolist()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def tree(tmp_path):
    """Two classes of 10 pictures each, told apart by their colour."""
    for label, colour in (("red_thing", RED), ("green", GREEN)):
        for i in range(10):
            save(tmp_path / "pics" / label / f"{i:02}.png", picture((40 + i, 30), colour))
    return tmp_path / "pics"


class TestPictures:
    def test_every_mode_becomes_rgb(self, tmp_path):
        cases = {
            "rgb.png": picture(),
            "cmyk.jpg": picture(mode="CMYK"),
            "alpha.png": picture(mode="RGBA"),
            "palette.gif": picture().quantize(8),
        }
        for name, image in cases.items():
            assert np.allclose(centre(save(tmp_path / name, image)), RED, atol=6), name
        assert np.allclose(
            centre(save(tmp_path / "grey.png", picture(mode="L"))), [81] * 3, atol=3
        )  # 0.299 R + 0.587 G + 0.114 B

    def test_sixteen_bits_are_scaled_not_cut(self, tmp_path):
        wide = Image.fromarray(np.full((30, 40), 32768, dtype=np.uint16))
        assert centre(save(tmp_path / "wide.png", wide)) == [128, 128, 128]
        assert centre(save(tmp_path / "wide.tif", wide)) == [128, 128, 128]

    def test_transparent_parts_become_white(self, tmp_path):
        assert (
            centre(save(tmp_path / "clear.png", Image.new("RGBA", (30, 30), (0, 0, 0, 0))))
            == [255] * 3
        )
        palette = picture().quantize(8)
        assert (
            centre(save(tmp_path / "palette.png", palette, transparency=palette.getpixel((0, 0))))
            == [255] * 3
        )

    def test_a_picture_is_turned_as_its_exif_says(self, tmp_path):
        image = picture((60, 60), BLUE)
        image.paste(GREEN, (0, 0, 60, 30))  # upper half green
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise: the upper half comes to the right
        pixels = shown(save(tmp_path / "turned.png", image, exif=exif), 20)
        assert np.allclose(pixels[:, 10, 18], GREEN, atol=3)
        assert np.allclose(pixels[:, 10, 2], BLUE, atol=3)

    def test_the_centred_square_is_kept(self, tmp_path):
        image = picture((90, 30), BLUE)
        image.paste(GREEN, (30, 0, 60, 30))
        pixels = shown(save(tmp_path / "wide.png", image), 30)
        assert pixels.shape == (3, 30, 30)
        assert (pixels == torch.tensor(GREEN)[:, None, None]).all()

    def test_floating_point_pictures_are_refused(self, tmp_path):
        save(tmp_path / "float.tif", Image.fromarray(np.ones((20, 20), dtype=np.float32)))
        with pytest.raises(ValueError, match="floating-point"):
            read_photo(tmp_path / "float.tif")


class TestReading:
    def test_damaged_and_missing_files_are_all_named(self, tree):
        paths = sorted(tree.rglob("*.png"))
        jpeg = save(
            tree / "green" / "big.jpg",
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)),
        )
        truncate(jpeg)
        truncate(paths[3])
        (tree / "green" / "text.jpg").write_text("no picture")
        paths += [jpeg, tree / "green" / "text.jpg"]
        with pytest.raises(
            ValueError, match=r"3 of 22 images cannot be read, first .*03.png.*doctor --data"
        ):
            read_images(paths, 16)
        assert set(damaged(paths)) == {paths[3], paths[-1], paths[-2]}
        with pytest.raises(
            FileNotFoundError, match=r"2 of 24 images are missing, first .*gone.png, .*lost.png"
        ):
            read_images([*paths, tree / "gone.png", tree / "lost.png"], 16)

    def test_a_damaged_exif_is_reported_not_raised(self, tree, monkeypatch):
        def broken(self):
            raise TypeError("exif")

        monkeypatch.setattr(Image.Image, "getexif", broken)
        paths = sorted(tree.rglob("*.png"))
        assert set(damaged(paths)) == set(paths)
        with pytest.raises(ValueError, match="20 of 20 images cannot be read.*exif"):
            read_images(paths, 16)

    def test_test_images_over_the_budget_are_checked_before_training(self, tree):
        truncate(sorted(tree.rglob("*.png"))[3])
        with pytest.raises(ValueError, match="1 of 20 images cannot be read"):
            read_images(sorted(tree.rglob("*.png")), 16, budget_bytes=0)

    def test_files_are_indexed_and_split_like_a_tensor(self, tree):
        paths = sorted(tree.rglob("*.png"))
        files, held = read_images(paths, 16, budget_bytes=1000), read_images(paths, 16)[:]
        assert files.held is None
        assert files.shape == held.shape
        assert torch.equal(torch.cat(list(files.split(7))), held)
        assert torch.equal(files[torch.tensor([3, 19, 3])], held[[3, 19, 3]])
        assert torch.equal(files[2:5], held[2:5])
        for index in (
            4,
            torch.tensor(4),
            torch.arange(20) % 3 == 0,
            slice(0, 0),
            torch.tensor([], dtype=torch.int64),
        ):
            assert torch.equal(files[index], held[index])
        truncate(paths[5])
        with pytest.raises(ValueError, match="1 of 7 images cannot be read, first .*05.png"):
            list(files.split(7))

    def test_the_fingerprint_changes_with_the_files(self, tree):
        paths = sorted(tree.rglob("*.png"))
        first = ImageFiles(paths, 16).fingerprint()
        assert ImageFiles(paths, 16).fingerprint() == first
        assert ImageFiles(paths, 17).fingerprint() != first
        assert ImageFiles(paths[::-1], 16).fingerprint() != first
        save(paths[0], picture((40, 30), BLUE))
        assert ImageFiles(paths, 16).fingerprint() != first


def refused(why):
    """Replace `ImageFiles._photo` by one that reads nothing, for the reason that `why` returns."""

    def photo(self, row, reduced):
        raise OSError(str(why()))

    return photo


@pytest.mark.skipif(not hasattr(os, "fork"), reason="worker processes are forked")
class TestWorkers:
    @pytest.fixture
    def files(self, tree, monkeypatch):
        """20 images that differ, decoded by two worker processes."""
        for name, value in (("FEW", 3), ("ITEM", 2), ("AHEAD", 1), ("_cores", lambda: 2)):
            monkeypatch.setattr(images, name, value)
        paths = sorted(tree.rglob("*.png"))
        for i, path in enumerate(paths):
            save(path, picture(colour=(10 * i, 0, 0)))
        return ImageFiles(paths, 16)

    def test_batches_come_in_order_whatever_their_size(self, files):
        torch.manual_seed(3)
        batches = [
            torch.tensor(b, dtype=torch.int64)
            for b in ([7, 3, 7], [], [19], list(range(20)), [-1, 0])
        ]
        pairs = [(rows, torch.zeros_like(rows)) for rows in batches]
        state, others = torch.get_rng_state(), random.getstate()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            got = list(files.stream(pairs, akd.Views(), 16))
        assert [x[:, 0, 8, 8].tolist() for x in got] == [
            [10 * (i % 20) for i in b.tolist()] for b in batches
        ]
        assert {(x.dtype, x.shape[1:], x.is_contiguous()) for x in got} == {
            (torch.uint8, (3, 16, 16), True)
        }
        assert torch.equal(torch.get_rng_state(), state)
        assert random.getstate() == others
        assert list(files.stream([], akd.Views(), 16)) == []
        with pytest.raises(IndexError, match="index 20 is out of bounds"):
            next(files.stream([(torch.tensor([20]), torch.tensor([0]))], akd.Views(), 16))
        with pytest.raises(ValueError, match=r"views 0\.\.0"):
            next(files.stream([(torch.tensor([2]), torch.tensor([1]))], akd.Views(), 16))

    def test_other_processes_decode_and_end_with_the_stream(self, files, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(ImageFiles, "_photo", refused(os.getpid))
            assert len(set(files.damaged().values()) - {str(os.getpid())}) == 2
        for leave in ("closed", "dropped", "damaged"):
            stream = files.split(2)
            next(stream)
            assert len(multiprocessing.active_children()) >= 1
            if leave == "closed":
                stream.close()
            elif leave == "dropped":
                del stream
            else:
                files.paths[9].write_text("no picture")
                with pytest.raises(
                    ValueError, match=r"1 of 20 images cannot be read, first .*09.png.*not an image"
                ) as kept:
                    files[:]
                stream.close()
                assert kept.tb  # a notebook keeps the last traceback: workers must not live as long
            assert multiprocessing.active_children() == []

    def test_the_seeds_of_workers_follow_from_the_seed(self, files, monkeypatch):
        monkeypatch.setattr(
            ImageFiles, "_photo", refused(lambda: f"{torch.initial_seed()} {random.random()}")
        )
        first = files.damaged()
        torch.manual_seed(99)
        assert files.damaged() == first
        assert len({reason.split()[0] for reason in first.values()}) == 2

    def test_no_tensor_goes_through_shared_memory(self, files, tree, monkeypatch):
        (tree / "green" / "00.png").write_text("no picture")
        sent, results = [], images._results
        monkeypatch.setattr(
            images, "_results", lambda *a: (sent.append(type(x)) or x for x in results(*a))
        )
        with pytest.raises(ValueError, match="1 of 20 images"):
            files[:]
        assert set(sent) == {np.ndarray, str}

    def test_the_reason_of_an_unpicklable_exception_arrives(self, files, monkeypatch):
        class Broken(Exception):
            def __init__(self, code, text):
                super().__init__(f"{code}: {text}")

        def broken(file, side):
            raise Broken(7, "torn")

        monkeypatch.setattr(images, "read_photo", broken)
        assert files.damaged() == dict.fromkeys(files.paths, "7: torn")

    def test_a_killed_worker_is_an_error_not_a_wait(self, files):
        stream = files.stream(
            [(torch.arange(20), torch.zeros(20, dtype=torch.int64))] * 20, akd.Views(), 16
        )
        next(stream)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="DataLoader worker"):
            list(stream)

    @pytest.mark.parametrize("why", ["few", "macos", "in a worker"])
    def test_no_process_is_started_where_it_is_useless_or_impossible(self, files, why, monkeypatch):
        if why == "few":
            monkeypatch.setattr(images, "FEW", 20)
        elif why == "macos":
            monkeypatch.setattr(images, "sys", types.SimpleNamespace(platform="darwin"))
        else:
            daemon = types.SimpleNamespace(
                current_process=lambda: types.SimpleNamespace(daemon=True)
            )
            monkeypatch.setattr(images, "multiprocessing", daemon)
        monkeypatch.setattr(ImageFiles, "_photo", refused(os.getpid))
        assert set(files.damaged().values()) == {str(os.getpid())}


def test_the_cache_decodes_each_file_once_for_all_views(tree, vlm, tmp_path, monkeypatch):
    from activekd_lite.utils import store

    data = akd.load_dataset(f"folder:{tree}", side=16, budget_bytes=0)
    held = akd.TeacherCache.build(
        vlm, akd.load_dataset(f"folder:{tree}", side=16).pool, 3, tmp_path / "held", progress=False
    )
    monkeypatch.setattr(store, "SHARD", 3 * 6)
    read = []
    monkeypatch.setattr(
        images, "read_photo", lambda file, side: read.append((file, side)) or read_photo(file, side)
    )
    built = akd.TeacherCache.build(vlm, data.pool, 3, tmp_path / "files", progress=False)
    assert sorted(read) == sorted(
        (path, None) for path in data.pool.images.paths
    )  # with all of their pixels
    assert built.fingerprint == held.fingerprint
    torch.testing.assert_close(built.features, held.features, atol=2e-3, rtol=0)


class TestFolder:
    def test_a_fifth_is_held_out_without_a_test_folder(self, tree):
        data = akd.load_dataset(f"folder:{tree}", side=16)
        assert (data.name, data.classnames) == ("pics", ("green", "red thing"))
        assert (len(data.pool), len(data.test)) == (16, 4)
        assert torch.bincount(data.test.labels).tolist() == [2, 2]
        red, green, _ = data.pool.images[:].float().mean(dim=(2, 3)).T
        assert torch.equal(data.oracle.label(torch.arange(16)) == 0, green > red)
        assert torch.equal(
            akd.load_dataset(f"folder:{tree}", side=16).pool.images[:], data.pool.images[:]
        )

    def test_train_and_test_folders_are_used_as_they_are(self, tree):
        shutil.copytree(tree, tree.parent / "split" / "train")
        shutil.copytree(tree, tree.parent / "split" / "test")
        data = akd.load_dataset(f"folder:{tree.parent / 'split'}", side=16, pool_size=7)
        assert (len(data.pool), len(data.test)) == (7, 20)

    def test_hidden_files_and_test_folders_are_not_classes(self, tree):
        save(tree / "green" / "._00.png")
        save(tree / "green" / ".ipynb_checkpoints" / "00.png")
        save(tree / ".hidden" / "00.png")
        (tree / "green" / "folder.png").mkdir()
        assert len(akd.load_dataset(f"folder:{tree}", side=16).pool) == 16
        for part in ("test", "val"):
            shutil.copytree(tree / "red_thing", tree / part / "red_thing")
        data = akd.load_dataset(f"folder:{tree}", side=16)
        assert (data.classnames, len(data.pool), len(data.test)) == (("green", "red thing"), 20, 10)

    def test_a_class_may_be_called_train(self, tree):
        (tree / "green").rename(tree / "train")
        assert akd.load_dataset(f"folder:{tree}", side=16).classnames == ("red thing", "train")

    def test_the_error_names_what_is_wrong(self, tree, tmp_path):
        (tree.parent / "bare" / "test" / "a").mkdir(parents=True)
        for c in "ab":
            save(tree.parent / "bare" / "train" / c / "1.png")
        with pytest.raises(ValueError, match="test contains no images"):
            akd.load_dataset(f"folder:{tree.parent / 'bare'}")
        with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
            akd.load_dataset("folder:/nowhere")
        (tmp_path / "empty" / "a").mkdir(parents=True)
        with pytest.raises(ValueError, match="1 class folders and 0 images"):
            akd.load_dataset(f"folder:{tmp_path / 'empty'}")
        save(tree / "lonely" / "one.png")
        with pytest.raises(
            ValueError,
            match="fewer than 2 labelled images, so none can be held out for testing: lonely",
        ):
            akd.load_dataset(f"folder:{tree}")
        save(tree / "test" / "blue" / "one.png")
        with pytest.raises(ValueError, match="has classes that .* does not have: blue"):
            akd.load_dataset(f"folder:{tree}")
        with pytest.raises(ValueError, match="pool_size = 99, but the data set has 7"):
            akd.load_dataset("folder:" + str(_split(tree, 7)), pool_size=99)

    @pytest.mark.filterwarnings("ignore:pool exhausted")
    def test_a_whole_run_from_files_that_are_not_held(self, tree, vlm, quick, tmp_path):
        """The same records as with the images in memory, encoding included."""
        records = []
        for budget in (2**31, 0):
            data = akd.load_dataset(f"folder:{tree}", side=32, budget_bytes=budget)
            assert (data.pool.images.held is None) == (budget == 0)
            cache = akd.TeacherCache.build(
                vlm, data.pool, views=2, root=tmp_path / str(budget), progress=False
            )
            with pytest.warns(UserWarning, match="never saw"):
                teacher = akd.ZeroShotTeacher(
                    cache, vlm.text_weights(data.classnames, data.templates)
                )
            result = akd.run_active_learning(
                data, teacher, rounds=1, query_size=2, train=quick, progress=False
            )
            records.append([r.outcome() for r in result.records])
        assert records[0] == records[1]


def test_without_a_teacher_damaged_files_are_named_before_training(tree, quick, monkeypatch):
    from activekd_lite import loop
    from activekd_lite.runs import setup

    data = akd.load_dataset(f"folder:{tree}", side=32, budget_bytes=0)
    data.pool.images.paths[3].write_bytes(b"nothing")
    monkeypatch.setattr(loop, "train_student", lambda *a, **k: pytest.fail("trained"))
    monkeypatch.setattr(setup, "make_bank", lambda *a, **k: pytest.fail("rendered"))
    name = data.pool.images.paths[3].name
    why = f"1 of {len(data.pool)} images cannot be read, first .*{name}"
    with pytest.raises(ValueError, match=why):
        akd.run_active_learning(data, None, rounds=0, train=quick, progress=False)


def _split(tree, count):
    """`count` pictures to train on, two to test, of two classes."""
    root = tree.parent / "small"
    for i in range(count):
        save(root / "train" / f"c{i % 2}" / f"{i}.png")
    for c in range(2):
        save(root / "test" / f"c{c}" / "t.png")
    return root


class TestCsv:
    def write(self, tree, rows, header="path,label,split"):
        file = tree.parent / "list.csv"
        file.write_text("\n".join([header, *rows]) + "\n")
        return f"csv:{file}"

    def test_labels_may_be_missing_in_the_pool(self, tree):
        rows = [f"pics/green/{i:02}.png,green,train" for i in range(5)] + [
            f"pics/red_thing/{i:02}.png,," for i in range(3)
        ]
        rows += [
            "pics/red_thing/07.png,red,",
            "pics/green/09.png,green,test",
            "pics/red_thing/09.png,red,test",
        ]
        data = akd.load_dataset(self.write(tree, rows), side=16)
        assert (data.name, data.classnames, len(data.pool), len(data.test)) == (
            "list",
            ("green", "red"),
            9,
            2,
        )
        assert data.oracle.label(torch.tensor([0, 8])).tolist() == [0, 1]
        with pytest.raises(
            ValueError, match="2 of 3 images asked for have no label, first at pool index 5"
        ):
            data.oracle.label(torch.tensor([0, 5, 7]))
        assert sorted(data.oracle.initial_indices(1, torch.Generator()).tolist())[1] == 8

    def test_a_relative_path_and_spaces_after_commas(self, tree, monkeypatch):
        rows = [
            f"pics/{c}/{i:02}.png, {c}, {'test' if i == 9 else 'train'}"
            for c in ("green", "red_thing")
            for i in range(10)
        ]
        self.write(tree, rows, "path, label, split")
        monkeypatch.chdir(tree.parent)
        assert len(akd.load_dataset("csv:list.csv", side=16).pool) == 18

    def test_a_run_on_images_without_a_label_is_refused_before_training(self, tree, quick):
        rows = [
            "pics/green/00.png,green,",
            "pics/red_thing/00.png,red,",
            "pics/green/01.png,,",
            "pics/green/02.png,green,test",
        ]
        data = akd.load_dataset(self.write(tree, rows), side=32)
        with pytest.raises(ValueError, match="1 images of the pool have no label"):
            akd.run_active_learning(data, rounds=1, query_size=1, train=quick, progress=False)
        assert (
            len(akd.run_active_learning(data, rounds=0, train=quick, progress=False).records) == 1
        )

    def test_white_space_is_stripped_and_a_repeated_row_counts_once(self, tree):
        rows = [
            "pics/green/00.png,green ,train ",
            "pics/green/01.png , green, train",
            "",
            'pics/red_thing/00.png, "red, dark" ,',
        ]
        rows += [
            rows[0],
            "pics/green/./00.png,green,",
            'pics/red_thing/01.png,"red, dark\t",test',
            "pics/green/02.png,green,test",
        ]
        source = sources.find(self.write(tree, rows, "path , label,split "), "")
        assert source.classnames == ["green", "red, dark"]
        assert ([path.name for path in source.pool[0]], source.pool[1]) == (
            ["00.png", "01.png", "00.png"],
            [0, 0, 1],
        )
        assert source.test[1] == [1, 0]

    def test_an_image_with_two_labels_or_in_both_splits_is_named_with_its_rows(self, tree):
        good = ["pics/green/00.png,green,train", "pics/red_thing/00.png,red,test", ""]
        for row, said in (
            (
                "pics/green/../green/00.png,red,train",
                "'pics/green/00.png' with two labels (row 2: 'green', row 5: 'red'; ",
            ),
            (
                "pics/green/00.png,,train",
                "two labels (row 2: 'green', row 5: ''; the header is row 1)",
            ),
            (
                "pics/green/00.png,green,test",
                "two splits (row 2: 'train', row 5: 'test'; the header is row 1)",
            ),
        ):
            with pytest.raises(ValueError, match=re.escape(said)):
                sources.find(self.write(tree, [*good, row]), "")

    def test_the_error_names_what_is_wrong(self, tree):
        (tree.parent / "empty.csv").write_text("")
        with pytest.raises(ValueError, match="empty.csv cannot be read as CSV"):
            akd.load_dataset(f"csv:{tree.parent / 'empty.csv'}")
        good = ["pics/green/00.png,green,train", "pics/red_thing/00.png,red,test"]
        for rows, header, why in (
            ([row.rpartition(",")[0] for row in good], "path,label", "split missing"),
            ([*good, "pics/green/01.png,green,dev"], "path,label,split", r"splits \['dev'\]"),
            (
                [*good, "pics/green/01.png,,test"],
                "path,label,split",
                "1 test images without a label",
            ),
            (
                [*good, "../secret.png,green,train"],
                "path,label,split",
                "'../secret.png', which lies outside",
            ),
            (
                [*good, "/etc/passwd,green,train"],
                "path,label,split",
                "'/etc/passwd', which lies outside",
            ),
            (good[:1], "path,label,split", "1 classes, 1 train and 0 test images"),
        ):
            with pytest.raises(ValueError, match=why):
                akd.load_dataset(self.write(tree, rows, header))
        with pytest.raises(FileNotFoundError, match="no file .*nothing.csv"):
            akd.load_dataset("csv:/nothing.csv")


def table(count=10, label=None, first=0, **columns):
    """Rows of Hugging Face `datasets`: red things and green ones in turn."""
    label = label or hf.ClassLabel(names=["red_thing", "green"])
    colours = [(RED, GREEN)[i % 2] for i in range(count)]
    values = ["red" if i % 2 == 0 else "green" for i in range(count)]
    if isinstance(label, hf.ClassLabel):
        values = [i % 2 for i in range(count)]
    rows = {"picture": [picture((40 + i, 30), c) for i, c in enumerate(colours)], "label": values}
    features = {"picture": hf.Image(), "label": label} | {
        name: feature for name, (feature, _) in columns.items()
    }
    return hf.Dataset.from_dict(
        rows | {name: v for name, (_, v) in columns.items()}, features=hf.Features(features)
    )


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        """An empty Hugging Face cache, and no network."""
        monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
        monkeypatch.setattr(
            "socket.getaddrinfo", lambda *_, **__: pytest.fail("reached for the network")
        )
        hf.disable_progress_bars()

    def parquet(self, folder, **splits):
        folder.mkdir(parents=True)
        for part, rows in splits.items():
            rows.to_parquet(folder / f"{part}-00000-of-00001.parquet")
        return f"hf:{folder}"

    def saved(self, tmp_path, **splits):
        hf.DatasetDict(splits).save_to_disk(tmp_path / "saved")
        return f"hf:{tmp_path / 'saved'}"

    def check(self, data, pool, test):
        assert (data.classnames, len(data.pool), len(data.test)) == (
            ("red thing", "green"),
            pool,
            test,
        )
        for labels, x in (
            (data.oracle.label(torch.arange(pool)), data.pool.images),
            (data.test.labels, data.test.images),
        ):
            assert torch.equal(x[:].float().mean(dim=(2, 3)).argmax(dim=1), labels)

    def test_parquet_and_what_was_saved_give_the_same(self, tmp_path):
        splits = {"train": table(12), "validation": table(2), "test": table(4)}
        first = akd.load_dataset(self.parquet(tmp_path / "pq", **splits), side=16)
        again = akd.load_dataset(self.saved(tmp_path, **splits), side=16)
        for data, name in ((first, "pq"), (again, "saved")):
            assert data.name == name
            self.check(data, 12, 4)
        assert first.pool.fingerprint() == again.pool.fingerprint()

    @pytest.mark.parametrize("part", ["validation", "valid", "val"])
    def test_validation_is_the_test_set_if_there_is_no_test(self, tmp_path, part):
        self.check(
            akd.load_dataset(self.saved(tmp_path, train=table(10), **{part: table(6)}), side=16),
            10,
            6,
        )

    def test_a_fifth_of_the_labelled_rows_is_held_out(self, tmp_path):
        table(20).save_to_disk(tmp_path / "one")
        self.check(akd.load_dataset(f"hf:{tmp_path / 'one'}", side=16), 16, 4)
        some = (
            table(20)
            .cast_column("label", hf.Value("int64"))
            .map(lambda row, i: {"label": -1 if i < 10 else row["label"]}, with_indices=True)
        )
        some = some.cast_column("label", hf.ClassLabel(names=["red_thing", "green"]))
        data = akd.load_dataset(self.saved(tmp_path, train=some), side=16)
        assert (len(data.pool), len(data.test), data.oracle.unknown_count) == (18, 2, 10)

    def test_rows_that_are_not_held_are_the_same_images(self, tmp_path, monkeypatch):
        name = self.parquet(tmp_path / "pq", train=table(40), test=table(4))
        held, files = (akd.load_dataset(name, side=16, budget_bytes=b).pool for b in (2**31, 0))
        assert files.images.held is None
        for cores in (1, 2):
            monkeypatch.setattr(
                images, "FEW", 100 if cores == 1 else 3
            )  # in this process, then in workers
            assert torch.equal(torch.cat(list(files.images.split(7))), held.images[:])
        assert files.fingerprint() == held.fingerprint()
        other = akd.load_dataset(
            self.saved(tmp_path, train=table(40).shuffle(seed=0), test=table(4)),
            side=16,
            budget_bytes=0,
        )
        assert files.fingerprint() != other.pool.fingerprint()

    def test_images_beside_the_table_are_files(self, tree):
        data = akd.load_dataset(f"hf:{tree}", side=16, budget_bytes=0)
        assert sorted(data.pool.images.paths + data.test.images.paths) == sorted(
            tree.rglob("*.png")
        )

    def test_a_text_column_called_label_is_accepted(self, tmp_path):
        data = akd.load_dataset(
            self.saved(
                tmp_path, train=table(10, hf.Value("string")), test=table(4, hf.Value("string"))
            ),
            side=16,
        )
        assert data.classnames == ("green", "red")
        assert data.oracle.label(torch.arange(3)).tolist() == [1, 0, 1]

    def test_a_data_set_is_read_from_the_cache_or_the_error_says_how_to_download_it(self, tmp_path):
        with pytest.raises(
            FileNotFoundError,
            match=r"download it once: `datasets.load_dataset\('org/cats', 'big'\)`",
        ):
            akd.load_dataset("hf:org/cats:big")
        self.parquet(tmp_path / "cats", train=table(10), test=table(4))
        hf.load_dataset(str(tmp_path / "cats"))  # leaves a copy in the cache, as a fetched one does
        (copy,) = (tmp_path / "hf-cache" / "cats").iterdir()
        copy.rename(copy.with_name("default"))
        (tmp_path / "hf-cache" / "cats").rename(tmp_path / "hf-cache" / "org___cats")
        for arrow in (tmp_path / "hf-cache").rglob("*.arrow"):
            assert arrow.name.startswith("cats-")
        data = akd.load_dataset("hf:org/cats", side=16)
        assert data.name == "cats"
        self.check(data, 10, 4)
        assert akd.load_dataset("hf:org/cats:default", side=16).name == "cats-default"

    def test_names_in_results(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        names = {
            "hf:org/cats": "cats",
            "hf:cats": "cats",
            "hf:org/cats:big": "cats-big",
            "hf:/a/dogs": "dogs",
            "hf:./b": "b",
        }
        assert {name: sources.short_name(name) for name in names} == names

    def test_a_missing_package_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match=r"hf:org/name needs .*pip install -e '.\[hf\]'"):
            akd.load_dataset("hf:org/name")

    def test_the_error_names_what_is_wrong(self, tmp_path):
        second = {
            "fine": (hf.ClassLabel(names=["a", "b"]), [0, 1] * 2),
            "mask": (hf.Image(), [picture()] * 4),
        }
        red = table(4, hf.Value("string")).select([0, 2])
        gone = table(4).cast_column("label", hf.Value("int64")).map(lambda row: {"label": -1})
        gone = gone.cast_column("label", hf.ClassLabel(names=["red_thing", "green"]))
        blue = table(4, hf.ClassLabel(names=["red_thing", "blue"]))
        way_out = "save_to_disk.'my_folder'.`, and give hf:./my_folder"
        for splits, why in (
            ({"dev": table(4)}, "has splits dev; one called 'train' is needed"),
            (
                {"train": table(4, **second)},
                f"image columns: picture, mask; label columns .*: label, fine; .*{way_out}",
            ),
            (
                {"train": table(4).remove_columns("label")},
                f"image columns: picture; label columns .*: none; .*{way_out}",
            ),
            (
                {"train": table(4), "test": gone},
                f"4 images without a label in split 'test', .*{way_out}",
            ),
            (
                {"train": table(4), "test": blue},
                "split 'test' has classes that 'train' does not have: blue",
            ),
            (
                {"train": red, "test": red},
                "1 classes, 2 images in 'train', 2 images in 'test'; at least two",
            ),
            (
                {"train": table(2)},
                "no test set, .* fewer than 2 labelled images, .*: red_thing, green",
            ),
        ):
            shutil.rmtree(tmp_path / "saved", ignore_errors=True)
            with pytest.raises(ValueError, match=why):
                akd.load_dataset(self.saved(tmp_path, **splits))
        with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
            akd.load_dataset("hf:/nowhere")
        (tmp_path / "bare").mkdir()
        (tmp_path / "torn").mkdir()
        (tmp_path / "torn" / "train.parquet").write_bytes(b"PAR1")
        for folder in ("bare", "torn"):
            with pytest.raises(ValueError, match=f"{folder} cannot be read as a data set"):
                akd.load_dataset(f"hf:{tmp_path / folder}")

    def test_damaged_rows_are_named_and_the_command_line_lists_them(self, tmp_path, capsys):
        train = table(6).cast_column("picture", hf.Image(decode=False))
        cells = train.to_dict()
        cells["picture"][2]["bytes"] = b"no picture"
        cells["picture"][4] = None
        name = self.saved(
            tmp_path, train=hf.Dataset.from_dict(cells, features=table(1).features), test=table(2)
        )
        with pytest.raises(
            ValueError,
            match=r"2 of 6 images cannot be read, first .*saved train\[2\], .*train\[4\]",
        ):
            akd.load_dataset(name, side=16)
        assert cli.main(["data", "check", name]) == 0
        assert "saved: 2 classes, 6 images in the pool, 2 for the test" in capsys.readouterr().out
        assert cli.main(["doctor", "--data", name]) == 1
        out = capsys.readouterr().out
        assert "saved train[2]: not an image that Pillow can read" in out
        assert "saved train[4]: the row contains no image" in out
        assert "2 of 8 images of saved cannot be read" in out


def coop(root, name):
    """Write one of the eleven in its layout: 3 classes, each with 4 training and 2 test images."""
    layout = sources.LAYOUTS[name]
    folder, colours = root / layout.folder, [RED, GREEN, BLUE]
    rows = {"train": [], "val": [], "test": []}
    for part, count in (("train", 4), ("val", 0 if name == "imagenet" else 1), ("test", 2)):
        for c, colour in enumerate(colours):
            for i in range(count):
                path = f"class_{c}/{part}{i}.jpg"
                if name == "fgvc_aircraft":
                    path = f"{part}{c}{i}.jpg"
                elif name == "imagenet":
                    path = f"{'train' if part == 'train' else 'val'}/n0{c}/{part}{i}.JPEG"
                save(folder / layout.images / path, picture(colour=colour))
                rows[part].append([path, c, f"class_{c}"])
    if name == "fgvc_aircraft":
        (folder / "variants.txt").write_text("A 300\nBoeing 7\nDC-3\n")
        for part in rows:
            lines = [f"{path[:-4]} {['A 300', 'Boeing 7', 'DC-3'][c]}" for path, c, _ in rows[part]]
            (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    elif name == "imagenet":
        (folder / "classnames.txt").write_text("n00 tench\nn01 maillot\nn02 maillot\n")
    else:
        (folder / layout.split).write_text(json.dumps(rows))
    return folder


class TestCoop:
    @pytest.mark.parametrize("name", sources.LAYOUTS)
    def test_each_of_the_eleven_in_its_layout(self, name, tmp_path):
        coop(tmp_path, name)
        data = akd.load_dataset(name, tmp_path, side=16)
        assert (data.name, len(data.pool), len(data.test)) == (name, 12, 6)
        names = {
            "fgvc_aircraft": ("A 300", "Boeing 7", "DC-3"),
            "imagenet": ("tench", "maillot", "maillot 2"),
        }
        assert data.classnames == names.get(name, ("class 0", "class 1", "class 2"))
        for labels, x in (
            (data.oracle.label(torch.arange(12)), data.pool.images),
            (data.test.labels, data.test.images),
        ):
            assert torch.equal(
                x[:].float().mean(dim=(2, 3)).argmax(dim=1), torch.tensor([0, 1, 2])[labels]
            )
        assert len(data.templates) == (7 if name == "imagenet" else 1)
        assert all("{}" in template for template in data.templates)

    @pytest.mark.filterwarnings("ignore:tiny-clip never saw", "ignore:pool exhausted")
    @pytest.mark.parametrize("name", sources.LAYOUTS)
    def test_a_round_of_the_papers_protocol_on_each(self, name, tmp_path):
        """All of it but the size: the embedded models, 3 labels asked for, one pass to train."""
        coop(tmp_path, name)
        length = ["pool_passes", "last_round_pool_passes"] if name == "imagenet" else ["passes"]
        train = replace(akd.RunConfig.paper(name).train, **dict.fromkeys(length, 1))
        config = akd.RunConfig.paper(
            name,
            train=train,
            vlm="tiny-clip",
            pretrained=None,
            student="tiny-cnn",
            rounds=1,
            query_size=3,
            pool_size=11,
            pool_per_seed=False,
            views=2,
        )
        result = config.run(
            tmp_path / "run", cache_root=tmp_path, data_root=tmp_path, device="cpu", progress=False
        )
        assert [r.labeled_count for r in result.records] == [3, 6]
        assert result.config["dataset"] == name
        assert result.config["pool_size"] == 11

    def test_a_split_file_with_outside_paths_or_nonsense_is_refused(self, tmp_path):
        file = coop(tmp_path, "dtd") / sources.LAYOUTS["dtd"].split
        good = json.loads(file.read_text())
        for change, why in (
            (["../../../etc/passwd", 0, "class_0"], "lies outside"),
            (["/etc/passwd", 0, "class_0"], "lies outside"),
            (["class_0/train0.jpg", 0, "other"], "calls label 0 both 'class_0' and 'other'"),
            (["class_0/train0.jpg", 7, "seven"], r"has labels \[0, 1, 2, 7\]"),
            (["class_0/train0.jpg"], "is not a split file"),
        ):
            file.write_text(json.dumps(good | {"train": [*good["train"], change]}))
            with pytest.raises(ValueError, match=why):
                akd.load_dataset("dtd", tmp_path)
        file.write_text('{"train": [')
        with pytest.raises(ValueError, match="is not valid JSON"):
            akd.load_dataset("dtd", tmp_path)

    @pytest.mark.parametrize("name", ["dtd", "fgvc_aircraft", "imagenet"])
    def test_a_test_part_without_an_image_is_refused(self, name, tmp_path):
        folder = coop(tmp_path, name)
        if name == "dtd":
            rows = json.loads((folder / sources.LAYOUTS[name].split).read_text())
            (folder / sources.LAYOUTS[name].split).write_text(json.dumps(rows | {"test": []}))
        elif name == "fgvc_aircraft":
            (folder / "images_variant_test.txt").write_text("")
        else:
            shutil.rmtree(folder / "images" / "val")
            (folder / "images" / "val").mkdir()
        with pytest.raises(
            ValueError, match=f"{name} has 12 images in the pool and 0 in the test set"
        ):
            akd.load_dataset(name, tmp_path)

    def test_missing_files_are_listed(self, tmp_path, capsys):
        with pytest.raises(
            FileNotFoundError,
            match=r"split_zhou_DescribableTextures.json, .*images; data/README.md",
        ):
            akd.load_dataset("dtd", tmp_path)
        assert cli.main(["data", "check", "imagenet", "--root", str(tmp_path)]) == 1
        assert "imagenet/images/val" in capsys.readouterr().out
        folder = coop(tmp_path, "dtd")
        assert cli.main(["data", "check", "dtd", "--root", str(tmp_path)]) == 0
        assert "dtd: 3 classes, 12 images in the pool, 6 for the test" in capsys.readouterr().out
        (folder / "images" / "class_1" / "test0.jpg").unlink()
        assert cli.main(["data", "check", "dtd", "--root", str(tmp_path)]) == 1
        assert "1 of the images are missing" in capsys.readouterr().out

    def test_doctor_lists_what_cannot_be_read(self, tmp_path, capsys):
        folder = coop(tmp_path, "eurosat")
        assert cli.main(["doctor", "--data", "eurosat", "--root", str(tmp_path)]) == 0
        truncate(folder / "2750" / "class_2" / "train1.jpg")
        assert cli.main(["doctor", "--data", "eurosat", "--root", str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert "class_2/train1.jpg: " in out
        assert "1 of 18 images of eurosat cannot be read" in out


def test_torchvision_from_its_own_files(tmp_path):
    """MNIST in the IDX format that torchvision reads, written here."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.repeat(np.repeat((labels * 25)[:, None, None], 28, axis=1), 28, axis=2)
        head = [(2051).to_bytes(4, "big"), *(n.to_bytes(4, "big") for n in (count, 28, 28))]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"".join(head) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            (2049).to_bytes(4, "big") + count.to_bytes(4, "big") + labels.tobytes()
        )
    data = akd.load_dataset("torchvision:MNIST", tmp_path, pool_size=20)
    assert (data.name, len(data.pool), len(data.test), data.pool.images.shape[-1]) == (
        "MNIST",
        20,
        20,
        28,
    )
    labels = data.oracle.label(torch.arange(20))
    assert torch.equal(data.pool.images[:, 0, 14, 14].long(), labels * 25)
    with pytest.raises(FileNotFoundError, match=r"download it once.*download=True"):
        akd.load_dataset("torchvision:CIFAR10", tmp_path)
    for name in ("HMDB51", "PhotoTour"):
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            akd.load_dataset(f"torchvision:{name}", tmp_path)
    with pytest.raises(ValueError, match="torchvision:Nothing is not a torchvision data set"):
        akd.load_dataset("torchvision:Nothing")


class TestJson:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (b"{", "Expecting"),
            (b"\xff", "utf-8"),
            (b"[" * 10**5, "100 levels"),
            (b"[" * 101 + b"]" * 101, "100 levels"),
            (b'{"a":' * 101 + b"1" + b"}" * 101, "100 levels"),
        ],
    )
    def test_unreadable_json_is_named_with_a_remedy(self, tmp_path, text, why):
        path = tmp_path / "facts.json"
        path.write_bytes(text)
        with pytest.raises(
            ValueError, match=rf"facts.json is not valid JSON \(.*{why}.*\); fetch it again"
        ):
            files.read_json(path, "fetch it again")

    def test_valid_json_is_what_the_json_module_gives(self, tmp_path):
        path = tmp_path / "facts.json"
        for value in (
            None,
            1.5,
            "[" * 200,
            [],
            {"a": [{"b": {}}] * 3},
            json.loads("[" * 100 + "]" * 100),
        ):
            path.write_text(json.dumps(value))
            assert files.read_json(path, "") == value

    def test_deep_brackets_are_found_wherever_json_is_read(self, small, vlm, quick, tmp_path):
        deep, out = "[" * 10**5 + "\n", tmp_path / "run"
        akd.run_active_learning(small, rounds=0, train=quick, out=out, progress=False)
        cached = akd.TeacherCache.build(vlm, small.pool, 1, tmp_path, progress=False).path
        split = coop(tmp_path, "dtd") / sources.LAYOUTS["dtd"].split
        for path, read in (
            (out / "config.json", lambda: akd.load_run(out)),
            (out / "rounds.jsonl", lambda: akd.load_run(out)),
            (cached / "manifest.json", lambda: akd.TeacherCache.open(cached)),
            (split, lambda: akd.load_dataset("dtd", tmp_path)),
            (out / "teachers.json", lambda: akd.sweep.teachers(out)),
        ):
            whole = path.read_bytes() if path.exists() else b"{}"
            path.write_text(deep)
            with pytest.raises(ValueError, match=path.name):
                read()
            path.write_bytes(whole)
        assert parse_value(deep) == deep


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "contains a list; a mapping is needed"),
        ('{"digits": 81.5}', "says 'digits': 81.5"),
        ('{"digits/clap": "81.5"}', "says 'digits/clap': '81.5'"),
        ('{"digits/clap": NaN}', "says 'digits/clap': nan; 'dataset/teacher' and a percentage"),
        ('{"digits/clap": 815}', "says 'digits/clap': 815; "),
    ],
)
def test_a_damaged_table_of_teachers_is_named(tmp_path, text, why):
    (tmp_path / "teachers.json").write_text(text)
    with pytest.raises(
        ValueError, match=rf"teachers.json {why}.*delete it, and the same sweep writes it again"
    ):
        akd.sweep.teachers(tmp_path)
    (tmp_path / "teachers.json").write_text('{"digits/clap": 81.5, "digits/own/name": 0}')
    assert akd.sweep.teachers(tmp_path) == {("digits", "clap"): 81.5, ("digits", "own/name"): 0}
