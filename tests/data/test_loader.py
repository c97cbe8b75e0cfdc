"""Batches: the same bits whatever the workers, the starting point or the number of processes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from asymseg.classes import Classes
from asymseg.config import DataConfig
from asymseg.data.dataset import Pair
from asymseg.data.loader import Batch, measure_normalisation, order, read_pair, training_loader
from asymseg.data.prefetching import prefetched
from asymseg.errors import ConfigError, DataError, TrainingError

CLASSES = Classes(("sky", "road"))


@pytest.fixture
def pairs(tmp_path) -> tuple[Pair, ...]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(5):
        pair = Pair(f"{number}", tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png")
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(pair.image)
        Image.fromarray(rng.integers(0, 2, (20, 24), dtype=np.uint8)).save(pair.mask)
        found.append(pair)
    return tuple(found)


def batches(pairs: tuple[Pair, ...], workers: int = 0, first: int = 0, count: int = 4, **settings) -> Iterator[Batch]:
    config = DataConfig(crop_size=(16, 16), workers=workers)
    wanted = {"batch_size": 4, "seed": 3, **settings}
    return training_loader(
        pairs, CLASSES, config, 3, (0.5,) * 3, (0.2,) * 3, first_batch=first, num_batches=count, **wanted
    )


def same(one: Batch, two: Batch) -> bool:
    return torch.equal(one.images, two.images) and torch.equal(one.masks, two.masks) and one.names == two.names


def test_a_batch_is_what_the_loss_wants(pairs):
    batch = next(batches(pairs))
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.masks.shape == (4, 16, 16)
    assert batch.masks.dtype == torch.int64
    assert len(batch.names) == 4
    assert same(batch.to("cpu"), batch)


def test_workers_change_nothing(pairs):
    alone, two = list(batches(pairs, 0)), list(batches(pairs, 2))
    assert len(alone) == len(two) == 4
    assert all(map(same, alone, two))


def test_more_workers_than_cores_give_the_same_and_no_warning(pairs, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    alone, two = list(batches(pairs, 0, count=2)), list(batches(pairs, 2, count=2))  # a warning would be an error
    assert all(map(same, alone, two))


def test_starting_later_equals_skipping(pairs):
    whole = list(batches(pairs))
    rest = list(batches(pairs, first=2, count=2))
    assert all(map(same, whole[2:], rest))
    assert not same(whole[0], rest[0])


def test_processes_share_a_batch(pairs):
    whole = list(batches(pairs))
    parts = [list(batches(pairs, rank=rank, world=2)) for rank in range(2)]
    for full, first, second in zip(whole, *parts, strict=True):
        joined = Batch(
            torch.cat([first.images, second.images]), torch.cat([first.masks, second.masks]), first.names + second.names
        )
        assert same(full, joined)


def test_every_epoch_has_every_image_once(pairs):
    names = [name for batch in batches(pairs, count=5) for name in batch.names]  # 20 samples: 4 epochs of 5
    epochs = [names[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == list("01234") for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert epochs[0] == [str(number) for number in order(5, seed=3, epoch=0)]


def test_another_seed_is_another_walk(pairs):
    assert not same(next(batches(pairs)), next(batches(pairs, seed=4)))


def test_the_random_numbers_of_others_are_left_alone(pairs):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(batches(pairs, workers=1, count=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_arrives_as_one_line(pairs, workers):
    pairs[2].image.write_bytes(pairs[2].image.read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        list(batches(pairs, workers))
    assert str(caught.value).startswith(f"{pairs[2].image}: not readable")
    assert "\n" not in str(caught.value)


def test_a_bug_keeps_its_traceback(pairs):
    config = DataConfig(crop_size=(16, 16), workers=0)
    loader = training_loader(
        pairs, CLASSES, config, 3, (0.5,), (0.2,), batch_size=1, first_batch=0, num_batches=1, seed=0
    )
    with pytest.raises(ConfigError, match="one number per channel"):
        next(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_kept_stay_as_they_were(pairs, workers):
    """Memory is used again, but not while anything still looks at it."""
    loader = batches(pairs, workers, count=15)
    kept, copies = [], []
    for number, batch in enumerate(loader):
        if number % 3 == 0:
            kept.append(batch.images[1:, :1] if number % 2 else batch.masks.view(-1))  # a part is enough
            copies.append(kept[-1].clone())
    assert len(kept) == 5
    assert all(map(torch.equal, kept, copies))


def test_memory_that_autograd_holds_is_not_used_again(pairs):
    loader = batches(pairs, count=6)
    weight = torch.ones(1, requires_grad=True)
    images = next(loader).images
    expected = images.sum().item()
    loss = (images * weight).sum()  # keeps the images for its backward pass
    del images
    for _ in loader:
        pass
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(expected)


def test_memory_comes_back(pairs):
    places = {batch.images.data_ptr() for batch in batches(pairs, count=12)}
    assert len(places) <= 2  # the one in hand and the next


@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_batches_are_the_same(pairs, monkeypatch, workers):
    """As on a machine with a GPU, as far as one without can tell."""
    pinned = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pinned.append(device))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    plain, copied = list(batches(pairs, 0)), list(batches(pairs, workers, pin_memory=True))
    assert len(copied) == 4
    assert all(map(same, plain, copied))
    assert pinned == [1] * 4


def test_shared_memory_that_is_not_there_is_told_by_one_line(pairs, monkeypatch):
    def refuse(_) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(TrainingError, match=r"no room for 0 MiB of shared memory.*lower --data\.workers"):
        batches(pairs, workers=1)


def test_a_worker_that_is_killed_is_explained(pairs, monkeypatch):
    def die(*_) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr("asymseg.data.loader.read_pair", die)
    with pytest.raises(TrainingError, match=r"out of memory.*lower --data\.workers"):
        next(batches(pairs))


def test_settings_that_cannot_be_met_are_refused_at_once(pairs):
    with pytest.raises(ConfigError, match="batch_size 4 does not divide by 3 processes"):
        batches(pairs, world=3)
    with pytest.raises(DataError, match="no training images"):
        batches(())


def test_reading_a_pair_checks_sizes(pairs, tmp_path):
    image, mask = read_pair(pairs[0], CLASSES, 3)
    assert image.shape == (3, 20, 24)
    assert mask.shape == (20, 24)
    wrong = Pair("x", pairs[0].image, tmp_path / "small.png")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(wrong.mask)
    with pytest.raises(DataError, match="2 x 3 pixels") as caught:
        read_pair(wrong, CLASSES)
    assert str(wrong.mask) in str(caught.value)
    assert f"{wrong.image} is 20 x 24" in str(caught.value)


def test_normalisation_by_hand(tmp_path):
    found = []
    for number, (left, right) in enumerate([((0, 51), (255, 51)), ((255, 51), (255, 51))]):
        path = tmp_path / f"{number}.npy"
        np.save(path, np.array([[left, right]], dtype=np.uint8))
        found.append(Pair(f"{number}", path, Path("unused")))
    mean, std = measure_normalisation(tuple(found), 2)
    assert mean == pytest.approx((0.75, 0.2))
    assert std == pytest.approx((np.sqrt(3) / 4, 1.0))  # the second channel never varies


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_the_order(workers):
    assert list(prefetched(range(20), lambda n: n * n, workers)) == [n * n for n in range(20)]
    assert list(prefetched([], lambda n: n, workers)) == []


def test_prefetching_is_bounded_and_stops():
    taken: list[int] = []
    lock = threading.Lock()

    def numbers() -> Iterator[int]:
        for number in range(1000):
            with lock:
                taken.append(number)
            yield number

    results = prefetched(numbers(), lambda n: n, workers=2)
    assert [next(results), next(results)] == [0, 1]
    assert len(taken) <= 2 + 4  # two handed out, four under way
    results.close()
    assert len(taken) <= 6


def test_prefetching_passes_errors_on():
    def fail(number: int) -> int:
        if number == 3:
            raise DataError("three")
        return number

    results = prefetched(range(9), fail, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="three"):
        next(results)
