"""One run at a time in a folder; the lock of a process that was killed holds nobody up."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from asymseg.errors import AsymsegError, TrainingError
from asymseg.training.folder import LOCK, claimed_folder


def test_a_second_run_is_refused_and_a_third_is_not(tmp_path):
    with claimed_folder(tmp_path / "run", resume=False, active=True):
        for resume in (False, True):
            with (
                pytest.raises(TrainingError, match=r"run: another run is writing there now; .*--out"),
                claimed_folder(tmp_path / "run", resume, active=True),
            ):
                pass
        with claimed_folder(tmp_path / "other", resume=False, active=True):
            pass
    with claimed_folder(tmp_path / "run", resume=False, active=True):
        pass


def test_a_run_that_failed_gives_the_folder_free(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed_folder(tmp_path, resume=False, active=True):
        raise ZeroDivisionError
    with claimed_folder(tmp_path, resume=False, active=True):
        pass


def refused(out: Path, log: str) -> None:
    """A run that gets as far as this log, and is refused."""
    with claimed_folder(out, resume=False, active=True):
        (out / "config.yaml").write_text("train: {}")
        (out / "tensorboard").mkdir()
        (out / "log.jsonl").write_text(log)
        raise AsymsegError("wrong")


def test_a_refusal_leaves_nothing_behind_but_what_was_there_or_learned(tmp_path):
    out = tmp_path / "runs" / "x"
    with pytest.raises(AsymsegError, match="wrong"):
        refused(out, "")
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(AsymsegError, match="wrong"):
        refused(out, "")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with pytest.raises(AsymsegError, match="wrong"):
        refused(out, '{"kind": "train", "step": 1}')
    assert {path.name for path in out.iterdir()} >= {"notes.txt", "config.yaml", "log.jsonl", "tensorboard"}


def test_a_refusal_is_told_where_a_lock_cannot_be_removed_while_it_is_held(tmp_path, monkeypatch):
    """As on Windows, where filelock removes it as soon as it is released."""

    class Lock(FileLock):
        def release(self, force: bool = False) -> None:
            super().release(force)
            os.unlink(self.lock_file)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == LOCK:
            raise PermissionError(13, "used by another process")
        os.unlink(path)

    monkeypatch.setattr("asymseg.training.folder.FileLock", Lock)
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(AsymsegError, match="wrong"):
        refused(tmp_path / "runs" / "x", "")
    assert list(tmp_path.iterdir()) == []


def test_other_processes_of_a_run_claim_nothing(tmp_path):
    with (
        claimed_folder(tmp_path / "run", resume=False, active=True),
        claimed_folder(tmp_path / "run", resume=False, active=False),
    ):
        pass
    with claimed_folder(tmp_path / "another", resume=False, active=False):
        assert not (tmp_path / "another").exists()


def test_half_files_of_a_killed_run_are_removed_and_others_stay(tmp_path):
    (tmp_path / ".last.part-abc").mkdir()
    (tmp_path / ".last.part-abc" / "training.pt").write_bytes(b"half")
    (tmp_path / ".log.part-abc.jsonl").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    with claimed_folder(tmp_path, resume=True, active=True):
        assert sorted(os.listdir(tmp_path)) == [LOCK, "notes.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_killed_holder_and_the_workers_it_leaves_do_not_block(tmp_path):
    """Workers live on for seconds after their parent; they must not hold its lock for it."""
    fork = multiprocessing.get_context("fork")
    told, orphan_told = fork.SimpleQueue(), fork.SimpleQueue()

    def hold() -> None:
        with claimed_folder(tmp_path, resume=True, active=True):
            child = os.fork()
            if child == 0:
                orphan_told.get()
                os._exit(0)
            told.put(child)
            signal.pause()

    holder = fork.Process(target=hold)
    holder.start()
    told.get()
    with pytest.raises(TrainingError, match="another run"), claimed_folder(tmp_path, resume=True, active=True):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()  # a limit would wait for the orphan too, which has the same pipe
    try:
        with claimed_folder(tmp_path, resume=True, active=True):
            pass
    finally:
        orphan_told.put(None)
