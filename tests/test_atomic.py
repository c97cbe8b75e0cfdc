"""Files and folders that appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from asymseg.atomic import atomic_file, atomic_folder, clear_leftovers, surviving_folder
from asymseg.errors import AsymsegError


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "place" / "notes.txt"
    with atomic_file(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with atomic_file(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["notes.txt"]


def test_a_failure_leaves_the_older_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def write():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / f"{'地' * 83}.png"  # 253 bytes of 255
    with atomic_file(path) as temporary:
        temporary.write_text("one")
    assert path.read_text() == "one"


def test_a_folder_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "model"
    for text in ("one", "two"):
        with atomic_folder(path) as temporary:
            (temporary / text).write_text(text)
            assert not (path / text).exists()
        assert os.listdir(path) == [text]  # nothing of the older one
        assert os.listdir(path.parent) == ["model"]


def test_a_failure_leaves_the_older_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()

    def write():
        with atomic_folder(path) as temporary:
            (temporary / "half").touch()
            raise RuntimeError("full")

    with pytest.raises(RuntimeError):
        write()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_survives_a_kill(tmp_path):
    path, previous = tmp_path / "model", tmp_path / "model.previous"
    assert surviving_folder(path) is None
    previous.mkdir()
    assert surviving_folder(path) == previous
    path.mkdir()
    assert surviving_folder(path) == path


def test_a_folder_left_by_a_kill_goes_with_the_next_success_only(tmp_path):
    path, previous = tmp_path / "model", tmp_path / "model.previous"
    previous.mkdir()

    def write():
        with atomic_folder(path):
            raise RuntimeError("full")

    with pytest.raises(RuntimeError):
        write()
    assert surviving_folder(path) == previous
    with atomic_folder(path) as temporary:
        (temporary / "new").touch()
    assert os.listdir(tmp_path) == ["model"]


def test_the_older_folder_is_kept_where_it_is_wanted(tmp_path):
    path = tmp_path / "state"
    for text in ("one", "two", "three"):
        with atomic_folder(path, lasting=True) as temporary:
            (temporary / text).write_text(text)
    assert sorted(os.listdir(tmp_path)) == ["state", "state.previous"]
    assert (os.listdir(path), os.listdir(tmp_path / "state.previous")) == (["three"], ["two"])


def test_a_kill_at_any_step_of_a_replacement_leaves_a_whole_folder(tmp_path, monkeypatch):
    """Every rename may be the last thing that happens; nothing is removed file by file before."""
    renames = 0
    original = Path.rename

    def dying(self, target):
        nonlocal renames
        renames += 1
        if renames == fatal:
            raise KeyboardInterrupt
        return original(self, target)

    for fatal in (1, 2, 3):
        path = tmp_path / str(fatal) / "state"
        for text in ("one", "two"):
            with atomic_folder(path, lasting=True) as temporary:
                (temporary / text).write_text(text)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying)
            patch.setattr("asymseg.atomic.shutil.rmtree", lambda *_, **__: None)  # a kill clears nothing
            with pytest.raises(KeyboardInterrupt), atomic_folder(path, lasting=True) as temporary:
                (temporary / "three").write_text("three")
        renames = 0
        assert os.listdir(surviving_folder(path)) == ["two"]
        clear_leftovers(path.parent)
        assert not [name for name in os.listdir(path.parent) if name.startswith(".")]
        assert os.listdir(surviving_folder(path)) == ["two"]


def test_leftovers_are_cleared_and_nothing_else(tmp_path):
    kept = ["log.jsonl", ".hidden", "a.part-b"]
    for name in kept:
        (tmp_path / name).write_text("x")
    with atomic_file(tmp_path / "log.jsonl") as file, atomic_folder(tmp_path / "last") as folder:
        copies = [file.with_name(file.name + "1"), folder.with_name(folder.name + "1")]
        copies[0].touch()
        copies[1].mkdir()
        (copies[1] / "half").touch()
    clear_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "last"])


@pytest.mark.skipif(os.name == "nt", reason="permission bits are POSIX's")
@pytest.mark.usefixtures("umask")
def test_permissions_are_those_of_other_files(tmp_path):
    with atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("x")
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "private").touch(0o600)
    assert (tmp_path / "folder" / "private").stat().st_mode & 0o777 == 0o640
    (tmp_path / "usual").write_text("x")
    (tmp_path / "usual folder").mkdir()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "usual": 0o640, "folder": 0o750, "usual folder": 0o750}


@pytest.mark.skipif(os.name == "nt", reason="permission bits are POSIX's")
@pytest.mark.usefixtures("umask")
def test_the_mask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    """It is one for all threads: what another makes meanwhile would be open to everybody, perhaps for good."""
    monkeypatch.setattr(os, "umask", None)
    with atomic_file(tmp_path / "file") as file, atomic_folder(tmp_path / "folder") as folder:
        assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o640, 0o750)
        file.chmod(0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    monkeypatch.undo()


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_parent_that_is_a_file(tmp_path, atomic):
    (tmp_path / "file").touch()

    def write():
        with atomic(tmp_path / "file" / "inside"):
            pass

    with pytest.raises(AsymsegError, match=r"cannot be made or written .*; choose another place"):
        write()


def test_a_folder_where_a_file_should_be_and_the_other_way_round(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AsymsegError, match="a folder of that name is in the way"), atomic_file(tmp_path / "folder"):
        pass
    with pytest.raises(AsymsegError, match="a file of that name is in the way"), atomic_folder(tmp_path / "file"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("atomic", "maker"), [(atomic_file, "touch"), (atomic_folder, "mkdir")])
def test_a_place_that_may_not_be_written(tmp_path, monkeypatch, atomic, maker):
    def refuse(path, **_):
        if path != tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, maker, refuse)
    with pytest.raises(AsymsegError, match=r"cannot be made or written \(Permission denied\)"), atomic(tmp_path / "x"):
        pass
