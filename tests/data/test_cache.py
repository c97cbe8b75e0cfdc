"""The cache of decoded files: the same bits as without it, never those of another file or another time."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from asymseg.classes import Classes
from asymseg.config import DataConfig
from asymseg.data import cache
from asymseg.data.cache import check_room, read_cached
from asymseg.data.dataset import Pair, read_pair
from asymseg.data.loader import training_loader
from asymseg.errors import DataError

CLASSES = Classes(("sky", "road"))


@pytest.fixture
def pairs(tmp_path) -> tuple[Pair, ...]:
    return tuple(make_pair(tmp_path, number) for number in range(5))


def make_pair(folder: Path, number: int, height: int = 20) -> Pair:
    rng = np.random.default_rng(number)
    pair = Pair(f"{number}", folder / f"{number}.png", folder / f"{number}_mask.png")
    Image.fromarray(rng.integers(0, 256, (height, 24, 3), dtype=np.uint8)).save(pair.image)
    Image.fromarray(rng.integers(0, 2, (height, 24), dtype=np.uint8)).save(pair.mask)
    return pair


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npy"))


def same(one: tuple[torch.Tensor, torch.Tensor], two: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, two, strict=True))


def without_decoding(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("decoded, though it is in the cache")

    monkeypatch.setattr(cache, "read_pair", refuse)


def test_the_second_time_nothing_is_decoded_and_all_bits_are_the_same(pairs, tmp_path, monkeypatch):
    plain = [read_pair(pair, CLASSES) for pair in pairs]
    first = [read_cached(tmp_path / "cache", pair, CLASSES, 3) for pair in pairs]
    without_decoding(monkeypatch)
    second = [read_cached(tmp_path / "cache", pair, CLASSES, 3) for pair in pairs]
    assert all(map(same, plain, first))
    assert all(map(same, plain, second))
    assert all(one[0].stride() == two[0].stride() for one, two in zip(plain, second, strict=True))
    assert len(entries(tmp_path / "cache")) == 10


@pytest.mark.parametrize("channels", [1, 5])
def test_floats_and_other_channels_are_kept_too(tmp_path, channels, monkeypatch):
    pair = Pair("a", tmp_path / "a.npy", tmp_path / "a.png")
    np.save(pair.image, np.random.default_rng(0).random((6, 7, channels)).astype(np.float32))
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(pair.mask)
    plain = read_pair(pair, CLASSES, channels)
    read_cached(tmp_path / "cache", pair, CLASSES, channels)
    without_decoding(monkeypatch)
    assert same(plain, read_cached(tmp_path / "cache", pair, CLASSES, channels))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_with_a_cache_are_those_without(pairs, tmp_path, workers):
    def batches(folder: Path | None) -> list[torch.Tensor]:
        settings = DataConfig(crop_size=(16, 16), workers=workers, cache=folder)
        mean = (0.5,) * 3
        loader = training_loader(
            pairs, CLASSES, settings, 3, mean, mean, batch_size=4, first_batch=0, num_batches=4, seed=3
        )
        return [tensor for batch in loader for tensor in (batch.images, batch.masks)]

    plain, empty, filled = batches(None), batches(tmp_path / "cache"), batches(tmp_path / "cache")
    assert all(map(torch.equal, plain, empty))
    assert all(map(torch.equal, plain, filled))
    assert len(entries(tmp_path / "cache")) == 10


def test_what_is_done_to_a_cached_image_stays_in_memory(pairs, tmp_path):
    expected = read_cached(tmp_path / "cache", pairs[0], CLASSES, 3)
    image, mask = read_cached(tmp_path / "cache", pairs[0], CLASSES, 3)
    image.zero_()
    mask.fill_(1)
    assert same(expected, read_cached(tmp_path / "cache", pairs[0], CLASSES, 3))


def test_a_changed_file_is_decoded_again_and_its_old_entry_removed(pairs, tmp_path):
    folder, pair = tmp_path / "cache", pairs[0]
    old = read_cached(folder, pair, CLASSES, 3)
    state = pair.image.stat()
    Image.open(pair.image).transpose(Image.Transpose.ROTATE_180).save(pair.image)
    os.truncate(pair.image, max(state.st_size, pair.image.stat().st_size))
    os.utime(pair.image, ns=(state.st_atime_ns, state.st_mtime_ns + 1))  # the least that can be told
    new = read_cached(folder, pair, CLASSES, 3)
    assert torch.equal(new[0], old[0].flip(1, 2))
    assert torch.equal(new[1], old[1])
    assert same(new, read_cached(folder, pair, CLASSES, 3))
    assert len(entries(folder)) == 2


def test_a_file_of_another_size_but_the_same_time_is_decoded_again(pairs, tmp_path):
    folder, pair = tmp_path / "cache", pairs[0]
    state = pair.mask.stat()
    read_cached(folder, pair, CLASSES, 3)
    Image.fromarray(np.ones((20, 24), np.uint8)).save(pair.mask)
    assert pair.mask.stat().st_size != state.st_size
    os.utime(pair.mask, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert read_cached(folder, pair, CLASSES, 3)[1].eq(1).all()


def test_another_place_or_another_meaning_is_another_entry(pairs, tmp_path):
    folder, pair = tmp_path / "cache", pairs[0]
    mask = read_cached(folder, pair, CLASSES, 3)[1]
    swapped = Classes(("sky", "road"), values={0: 1, 1: 0})
    assert torch.equal(read_cached(folder, pair, swapped, 3)[1], 1 - mask)
    assert torch.equal(read_cached(folder, pair, CLASSES, 3)[1], mask)
    Image.open(pair.image).convert("L").save(pair.image)
    assert read_cached(folder, pair, CLASSES, 3)[0].shape == (3, 20, 24)
    assert read_cached(folder, pair, CLASSES, 1)[0].shape == (1, 20, 24)


def test_files_of_one_name_size_and_time_in_two_folders_are_two(tmp_path):
    for number, folder in enumerate((tmp_path / "a", tmp_path / "b")):
        folder.mkdir()
        for name, shape in (("image.npy", (6, 7, 3)), ("mask.npy", (6, 7))):
            np.save(folder / name, np.full(shape, number, np.uint8))
            os.utime(folder / name, ns=(0, 10**18))
        pair = Pair("same", folder / "image.npy", folder / "mask.npy")
        image, mask = read_cached(tmp_path / "cache", pair, CLASSES, 3)
        assert image.eq(number).all()
        assert mask.eq(number).all()
    assert len(entries(tmp_path / "cache")) == 4


def test_a_damaged_entry_is_written_anew(pairs, tmp_path):
    folder = tmp_path / "cache"
    expected = read_cached(folder, pairs[0], CLASSES, 3)
    for keep in (0, 50, 200):
        for entry in entries(folder):
            entry.write_bytes(entry.read_bytes()[:keep])
        assert same(expected, read_cached(folder, pairs[0], CLASSES, 3))
        assert same(expected, read_cached(folder, pairs[0], CLASSES, 3))


def test_faults_of_the_files_are_told_as_without_a_cache(pairs, tmp_path):
    folder, pair = tmp_path / "cache", pairs[0]
    read_cached(folder, pair, CLASSES, 3)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(pair.mask)
    with pytest.raises(DataError, match="3 x 3 pixels"):
        read_cached(folder, pair, CLASSES, 3)
    pair.image.unlink()
    with pytest.raises(DataError, match=r"0\.png: not readable \(No such file"):
        read_cached(folder, pair, CLASSES, 3)


def test_a_full_disk_is_told_before_the_first_batch(pairs, tmp_path, monkeypatch):
    needed = 5 * 20 * 24 * 4
    settings = DataConfig(crop_size=(16, 16), workers=0, cache=tmp_path / "cache")

    def loader():
        return training_loader(
            pairs, CLASSES, settings, 3, (0.5,) * 3, (0.5,) * 3, batch_size=1, first_batch=0, num_batches=1, seed=0
        )

    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**28 + needed - 1))
    with pytest.raises(DataError, match=r"5 decoded images with masks need .* MiB.*--data\.cache") as caught:
        loader()
    assert "\n" not in str(caught.value)
    for pair in pairs:
        read_cached(tmp_path / "cache", pair, CLASSES, 3)
    next(loader())  # all is there, and nothing more is needed
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**28 + needed))
    check_room(tmp_path / "other", pairs, CLASSES, 3)


def test_a_disk_that_fills_up_later_is_told_by_one_line(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**28))
    with pytest.raises(DataError, match="free space there"):
        read_cached(tmp_path / "cache", pairs[0], CLASSES, 3)
    monkeypatch.undo()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free space") as caught:
        read_cached(tmp_path / "cache", pairs[0], CLASSES, 3)
    assert str(tmp_path / "cache") in str(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_file_in_the_way_is_named(pairs, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match="a file, not a folder"):
        check_room(tmp_path / "cache", pairs, CLASSES, 3)
