"""Published weights by name: downloaded, checked and imported once, and from then on a model folder of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from asymseg.errors import CheckpointError
from asymseg.model.checkpoint import save_model
from asymseg.model.download import Advance, download
from asymseg.model.foreign.importing import import_checkpoint
from asymseg.model.foreign.known_classes import CITYSCAPES, VOC2012
from asymseg.model.info import ModelInfo
from asymseg.model.zoo import HOME, Published, cached_folder, home

CLASSES = {"Cityscapes": CITYSCAPES, "VOC 2012 + aug": VOC2012}
"""For files that do not name their classes."""


def fetch(entry: Published) -> Path:
    """The model folder of published weights: downloaded, checked and imported once, and from then on at hand.

    Two processes that want the same weights wait for each other. Raises CheckpointError.
    """
    folder = cached_folder(entry)
    if folder is not None:
        return folder
    folder = home() / "models" / entry.name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{entry.name}.lock"))
        with _held(lock, entry):
            if cached_folder(entry) is None:  # nobody else fetched it while this process waited
                _fetch(entry, folder)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); set {HOME} to a folder with room for it"
        ) from None
    return folder


def _fetch(entry: Published, folder: Path) -> None:
    file = home() / "downloads" / f"{entry.name}{Path(entry.address).suffix}"
    with _bar(entry) as advance:
        try:
            download(entry.address, file, entry.sha256, advance)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; or fetch it by other means and put it at {file}") from None
    network, info = import_checkpoint(file, CLASSES.get(entry.dataset), entry.align_corners)
    save_model(folder, network, _described(info, entry))
    file.unlink()  # the folder holds all of it


def _described(info: ModelInfo, entry: Published) -> ModelInfo:
    """What the file says, with what its publisher says of it."""
    reported = {
        "reported_miou": round(entry.miou / 100, 4),
        "reported_miou_multi_scale_flip": round(entry.miou_multi_scale / 100, 4),
    }
    source = f"{entry.framework}, {entry.dataset}, crops of {entry.crop[0]}x{entry.crop[1]}: {entry.address}"
    seeing = replace(info.seeing, window=entry.crop)
    if entry.slides:
        seeing = replace(seeing, mode="slide", average="mixed")
    return replace(info, seeing=seeing, source=source, license=entry.license, metrics=reported)


@contextmanager
def _held(lock: FileLock, entry: Published) -> Iterator[None]:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        Console(stderr=True).print(f"another process is fetching {entry.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _bar(entry: Published) -> Iterator[Advance]:
    """Say on the terminal what is fetched, and how far it is."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"fetching {entry.name} (about {entry.megabytes} MB), once; it is kept in {home()}", highlight=False)
    columns = (TextColumn(entry.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(entry.name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
