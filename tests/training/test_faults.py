"""What happens to runs from outside: each is told in one line, and the last good state is there to go on from."""

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
from tiny_runs import TINY, Killed, at_step, equal, kill_before, quiet, run, state, timeless, tiny
from torch.utils.data import get_worker_info

import asymseg.data.loader as loader
from asymseg.config import make_config
from asymseg.data.sample import write_sample
from asymseg.errors import AsymsegError, DataError
from asymseg.training.log import read_log
from asymseg.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def data(tmp_path) -> Path:
    write_sample(tmp_path / "data", train=4, val=1, test=1)
    return tmp_path / "data"


def fails(folder: Path, out: Path, **config) -> str:
    """The one line that a run ends with, which is saved after every second step."""
    with pytest.raises(AsymsegError) as caught:
        train(folder, make_config(TINY, {"train": {"steps": 6}}, config), out=out, console=quiet())
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing has happened to."""
    folder = tmp_path_factory.mktemp("whole")
    write_sample(folder / "data", train=4, val=1, test=1)
    run(folder / "data", tiny(steps=6), folder / "run")
    return folder / "run"


def goes_on(data: Path, out: Path, whole: Path) -> None:
    """The run ends as the other one."""
    run(data, tiny(steps=6), out, resume=True)
    assert equal(state(whole), state(out))
    assert timeless(whole) == timeless(out)


@pytest.fixture
def small_files():
    """Give a function that makes every file end at this many bytes, as a disk that is full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [1000, 2_000_000], ids=["no room at all", "room for the model alone"])
def test_a_full_disk(data, tmp_path, monkeypatch, small_files, whole, most):
    out = tmp_path / "run"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    with monkeypatch.context() as patch:
        at_step(2, lambda: small_files(most), patch)
        message = fails(data, out)
    small_files(unlimited)
    assert message.startswith(f"{out}: cannot be written (File too large")
    assert message.endswith(f"the last good state is {out / 'last'}: go on with --resume")
    assert state(out)["progress"]["step"] == 2
    assert not list(out.glob(".*.part-*"))
    goes_on(data, out, whole)


def test_an_output_that_may_no_longer_be_written(data, tmp_path, monkeypatch, whole):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        at_step(3, lambda: patch.setattr(Path, "mkdir", refuse), patch)
        message = fails(data, tmp_path / "run")
    assert "cannot be made or written (Read-only file system)" in message
    assert message.endswith("go on with --resume")
    goes_on(data, tmp_path / "run", whole)


def test_an_output_that_may_never_be_written(data, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = fails(data, tmp_path / "run")
    assert message == f"{tmp_path / 'run'}: cannot be made or written (Permission denied); name another folder by --out"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_folder_that_vanishes(data, tmp_path, monkeypatch, workers):
    away = tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        at_step(2, lambda: data.rename(away), patch)
        message = fails(data, tmp_path / "run", data={"workers": workers, "on_bad_file": "skip"}, train={"steps": 30})
    assert message.startswith(f"{data / 'images'}")  # of training, or of a validation that comes first
    assert "png: no such file, nor its folder (is its disk mounted?); check the path; the last good" in message
    assert message.endswith("go on with --resume")
    away.rename(data)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_any_more_ends_the_run(data, tmp_path, monkeypatch, workers):
    bad = data / "masks" / "train" / "0001.png"
    with monkeypatch.context() as patch:
        at_step(2, lambda: spoil(bad), patch)
        message = fails(data, tmp_path / "run", data={"workers": workers}, train={"steps": 12})
    assert message.startswith(f"{bad}: not readable (")
    assert "go on with --resume" in message


def test_or_is_skipped_and_counted(data, tmp_path):
    """Of 4 images each is seen in every second step of 2; the bad one's place goes to the next in the order."""
    bad = data / "images" / "train" / "0001.png"
    spoil(bad)
    config = make_config(
        TINY, {"data": {"workers": 1, "on_bad_file": "skip"}, "train": {"steps": 8, "validate_every": 8}}
    )
    _, shown = run(data, config, tmp_path / "run", report=True)
    lines = [entry for entry in read_log(tmp_path / "run") if entry["kind"] == "skipped"]
    assert len(lines) >= 4  # once in each of four epochs, and where it would have stood in for itself
    assert {entry["message"].partition(": ")[0] for entry in lines} == {str(bad)}
    assert [entry["step"] for entry in lines] == sorted(entry["step"] for entry in lines)
    assert shown.count(f"skipped: {bad}: ") == 2  # by the look before the first step, and when it was met
    note = f"1 training files could not be read and were left out, {len(lines)} times in all"
    assert note in shown
    assert note in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_skipping_does_not_hang_on_where_a_run_was_killed(data, tmp_path, monkeypatch):
    spoil(data / "images" / "train" / "0001.png")
    config = make_config(TINY, {"data": {"on_bad_file": "skip"}, "train": {"steps": 6, "save_every": 1}})
    run(data, config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_before(3, patch)
        with pytest.raises(Killed):
            train(data, config, out=tmp_path / "killed", console=quiet())
    run(data, config, tmp_path / "killed", resume=True)
    assert equal(state(tmp_path / "whole"), state(tmp_path / "killed"))
    steps = [[entry["step"] for entry in read_log(tmp_path / name)] for name in ("whole", "killed")]
    assert steps[0] == steps[1]


def test_the_others_are_seen_as_often_as_before(data):
    """What stands in for a bad file is another one, cut by the place's own random numbers."""
    bad = data / "images" / "train" / "0001.png"
    spoil(bad)
    config = make_config(TINY, {"data": {"on_bad_file": "skip"}})
    dataset = loader_data(data)
    batches = loader.training_loader(
        dataset.splits["train"], dataset.classes, config.data, 3, (0.5,) * 3, (0.2,) * 3,
        batch_size=4, first_batch=0, num_batches=3, seed=0,
    )  # fmt: skip
    for number, batch in enumerate(batches):
        order = [dataset.splits["train"][place].name for place in loader.order(4, 0, number)]
        place = order.index("0001")
        expected = [name if name != "0001" else order[(place + 1) % 4] for name in order]
        assert batch.names == expected
        assert len(batch.skipped) == 1


def loader_data(data: Path):
    from asymseg.data.dataset import open_dataset

    return open_dataset(data)


def test_no_file_that_can_be_read(data, tmp_path, monkeypatch):
    files = list((data / "images" / "train").iterdir())
    with monkeypatch.context() as patch:
        at_step(2, lambda: [spoil(file) for file in files], patch)
        message = fails(data, tmp_path / "run", data={"on_bad_file": "skip"})
    assert message.startswith("none of the 4 training images can be read; ")
    message = fails(data, tmp_path / "other", data={"on_bad_file": "skip"})
    assert "also faulty" in message  # from the look before the first step


def test_a_validation_image_is_never_skipped(data, tmp_path):
    spoil(next((data / "images" / "val").iterdir()))
    with pytest.raises(DataError, match=r"images.val.\d+\.png: not readable"):
        train(data, make_config(TINY, {"data": {"on_bad_file": "skip"}}), out=tmp_path / "run", console=quiet())


def test_a_worker_that_the_system_kills(data, tmp_path, monkeypatch):
    original = loader.read_pair

    def dying(pair, *arguments):
        if pair.name == "0002" and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(pair, *arguments)

    monkeypatch.setattr(loader, "read_pair", dying)
    message = fails(data, tmp_path / "run", data={"workers": 1}, train={"steps": 12})
    assert message.startswith("a process that reads images died (DataLoader worker (pid")
    assert f"while it read {data / 'images' / 'train' / '0002.png'} and the mask" in message
    assert "lower --data.workers" in message


def test_a_bug_in_a_worker_shows_its_traceback_and_the_file(data, tmp_path, monkeypatch):
    original = loader.read_pair

    def broken(pair, *arguments):
        if pair.name == "0002":
            raise KeyError("a bug of ours")
        return original(pair, *arguments)

    monkeypatch.setattr(loader, "read_pair", broken)
    config = make_config(TINY, {"data": {"workers": 1}, "train": {"steps": 12}})
    with pytest.raises(KeyError) as caught:
        train(data, config, out=tmp_path / "run", console=quiet())
    told = str(caught.value)
    assert "a bug of ours" in told
    assert "in broken" in told  # the line in the worker
    assert f"while it read {data / 'images' / 'train' / '0002.png'} and {data / 'masks' / 'train' / '0002.png'}" in told


def test_a_bug_of_ours_is_not_taken_for_a_fault(data, tmp_path, monkeypatch):
    def bug():
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    at_step(1, bug, monkeypatch)
    with pytest.raises(OSError, match="Bad file descriptor"):
        train(data, tiny(), out=tmp_path / "run", console=quiet())
