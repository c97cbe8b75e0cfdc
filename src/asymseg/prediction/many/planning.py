"""What a prediction of many images reads and where each result goes, before any is made. Needs no torch."""

import glob
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from asymseg.data.decoding import IMAGE_SUFFIXES
from asymseg.data.pairing import is_data, listed
from asymseg.errors import ConfigError, DataError
from asymseg.prediction.many.stores import Store, find_in_store, is_address, on_disk
from asymseg.prediction.video import VIDEO_SUFFIXES

_LIST = ".txt"
_SHOWN = 3


@dataclass(frozen=True)
class Plan:
    """Images by their names in a folder, sorted, and the folder of their masks."""

    source: Store
    names: tuple[str, ...]
    out: Store
    named: str = ""
    """The mask's own name, where there is one image and -o names a file."""

    def mask(self, name: str) -> str:
        """The name in `out` of an image's mask: the image's own, with the suffix png."""
        return self.named or PurePosixPath(name).with_suffix(".png").as_posix()

    def files(self, name: str, overlay: bool, probabilities: bool) -> list[str]:
        """The names in `out` of all that is written of an image."""
        mask = self.mask(name)
        return [mask, *([overlay_name(mask)] if overlay else []), *([shares_name(mask)] if probabilities else [])]


def overlay_name(mask: str) -> str:
    """Of the picture to look at."""
    return f"{mask.removesuffix(PurePosixPath(mask).suffix)}_overlay.jpg"


def shares_name(mask: str) -> str:
    """Of the file of probabilities."""
    return f"{mask.removesuffix(PurePosixPath(mask).suffix)}_probabilities.npz"


def plan_files(
    inputs: str | Path | Sequence[str | Path], out: str | Path, *, overlay: bool = True, probabilities: bool = False
) -> Plan:
    """The plan for an image, a folder (with its subfolders), a pattern or a list of images, or for several of these.

    All places may be paths, or addresses of a store that fsspec knows, such as s3://bucket/photos. A list is a file
    NAME.txt with a path or an address in each line; paths are relative to its own folder. What several inputs, or the
    lines of a list, mean keeps its place below the folder that all share; of several, what holds no image is passed
    over with a warning, as is a list; there is one too where a folder of data brings its masks. Raises DataError where
    nothing is to be read, where two images would write the same file, or where one would be overwritten; ConfigError
    where `out` is named as a file that cannot be written.
    """
    target = str(out) if is_address(out) else on_disk(out)
    several = [inputs] if isinstance(inputs, str | Path) else inputs
    source, names = _images(several[0], target) if len(several) == 1 else _images_of_several(several, target)
    plan = Plan(source, names, *_result_folder(target, len(names)))
    _refuse_overwriting(plan, overlay, probabilities)
    if {"images", "masks"} <= {name.partition("/")[0] for name in names}:
        cure = f"name {source.place('images')} for its images alone"
        warnings.warn(f"{source.place('masks')}: masks are predicted as images are; {cure}", stacklevel=2)
    return plan


def find_images(inputs: Path, out: Path | None = None) -> tuple[Path, list[Path]]:
    """The images on the disk that `inputs` means, in order, and the folder their names are relative to.

    What lies in `out`, a folder below that one, was written by an earlier run and is left out. Raises DataError.
    """
    if inputs.is_file():
        return inputs.parent, [inputs]
    if inputs.is_dir():
        root = inputs
        if out is not None and out.resolve() == inputs.resolve():
            raise _among_images(out)
        paths = [path for path in inputs.rglob("*") if _is_image(path.name) and path.is_file()]
    else:
        root = Path(*[part for part in _before_wildcard(inputs.parts)])
        found = {Path(name) for name in glob.glob(str(inputs), recursive=True)}
        paths = [path for path in found if _is_image(path.name) and path.is_file()]
    if out is not None and root.resolve() in out.resolve().parents:
        paths = [path for path in paths if out.resolve() not in path.resolve().parents]
    if not paths:
        raise _no_images(inputs)
    return root, sorted(paths)


def _images(inputs: str | Path, out: Path | str) -> tuple[Store, tuple[str, ...]]:
    if is_address(inputs):
        return _images_in_store(str(inputs), out)
    return _images_on_disk(on_disk(inputs), out)


def _images_of_several(inputs: Sequence[str | Path], out: Path | str) -> tuple[Store, tuple[str, ...]]:
    places, others = list[str](), list[str]()
    for each in inputs:
        if not is_address(each) and _is_no_image(on_disk(each), out):
            others.append(str(each))
            continue
        source, names = _images(each, out)
        places += [_whole(source.place(name)) if source.local else source.place(name) for name in names]
    if not places:
        raise _no_images(" ".join(map(str, inputs)))
    if others:
        warnings.warn(f"passed over, for they are no images: {listed(others, _SHOWN)}", stacklevel=2)
    return _sharing(places, f"{inputs[0]} and others")


def _is_no_image(path: Path, out: Path | str) -> bool:
    """Whether it is what a shell's * fits too: another kind of file, a folder without images, that of the results."""
    if path.is_dir():
        mine = isinstance(out, Path) and path.resolve() == out.resolve()
        return mine or not any(_is_image(inside.name) for inside in path.rglob("*"))
    return path.is_file() and not _is_image(path.name)


def _images_on_disk(inputs: Path, out: Path | str) -> tuple[Store, tuple[str, ...]]:
    if inputs.suffix.lower() == _LIST and inputs.is_file():
        return _listed(Store(str(inputs.parent)), inputs.name)
    root, paths = find_images(inputs, out if isinstance(out, Path) else None)
    return Store(str(root)), tuple(path.relative_to(root).as_posix() for path in paths)


def _images_in_store(inputs: str, out: Path | str) -> tuple[Store, tuple[str, ...]]:
    source, names = find_in_store(inputs)
    if len(names) == 1 and inputs.lower().endswith(_LIST) and inputs.endswith(names[0]):
        return _listed(source, names[0])
    root = f"{source.address.rstrip('/')}/"
    if isinstance(out, str) and f"{out.rstrip('/')}/" == root and not glob.has_magic(inputs) and len(names) != 1:
        raise _among_images(out)
    if isinstance(out, str) and out.startswith(root):
        written = f"{out.removeprefix(root).rstrip('/')}/"
        names = [name for name in names if not name.startswith(written)]
    names = [name for name in names if _is_image(PurePosixPath(name).name)]
    if not names:
        raise _no_images(inputs)
    return source, tuple(sorted(names))


def _listed(folder: Store, name: str) -> tuple[Store, tuple[str, ...]]:
    """The images that a list names, and the folder that they share."""
    place = folder.place(name)
    try:
        text = folder.content(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(f"{place}: not a text; a list has the path of an image in each line")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise _no_images(place)
    return _sharing([_from_list(folder, line) for line in lines], place)


def _sharing(places: Sequence[str], where: str) -> tuple[Store, tuple[str, ...]]:
    """The folder that images share, and their names below it; `where` says in a message what named them."""
    places = list(dict.fromkeys(places))
    nameless = next((each for each in places if each.endswith("/")), None)
    if nameless is not None:
        raise DataError(f"{where}: {nameless} is a folder; name images")
    addresses = [is_address(each) for each in places]
    parents = [each.rpartition("/")[0].split("/") for each in places]
    root = "/".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*parents, strict=False)))
    if not any(addresses):
        try:
            root = Path(os.path.commonpath([Path(each).parent for each in places])).as_posix()
        except ValueError:
            raise _apart(where) from None  # Windows has several disks
    elif root.count("/") < 2:
        raise _apart(where)
    below = len(root.rstrip("/")) + 1 if root != "." else 0
    return Store(root), tuple(sorted(each[below:] for each in places))


def _from_list(folder: Store, line: str) -> str:
    if is_address(line) or folder.local is None:
        return line if is_address(line) else folder.place(line)
    return _whole(folder.local / on_disk(line))


def _whole(path: Path | str) -> str:
    return Path(os.path.abspath(path)).as_posix()


def _result_folder(out: Path | str, images: int) -> tuple[Store, str]:
    """The folder of the masks and, where `out` is a file for one image, the mask's name."""
    folder, _, name = str(out).rpartition("/") if isinstance(out, str) else (str(out.parent), "", out.name)
    suffix = PurePosixPath(name).suffix.lower()
    if isinstance(out, Path) and out.is_dir():
        suffix = ""
    if images == 1 and suffix == ".png":
        return Store(folder), name
    if suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        why = "a mask is a PNG, NAME.png; or" if images == 1 else f"there are {images} images;"
        raise ConfigError(f"-o {out}: {why} give a folder")
    return Store(str(out)), ""


def _refuse_overwriting(plan: Plan, overlay: bool, probabilities: bool) -> None:
    inputs = _identities(plan.source, plan.names)
    sources: dict[str, str] = {}
    for name in plan.names:
        files = plan.files(name, overlay, probabilities)
        for file, identity in zip(files, _identities(plan.out, files), strict=True):
            if identity in inputs:
                raise DataError(
                    f"{plan.source.place(name)}: its result would overwrite the image {plan.out.place(file)}; "
                    "choose another folder for -o"
                )
        if files[0] in sources:
            one, other = plan.source.place(sources[files[0]]), plan.source.place(name)
            raise DataError(
                f"{one} and {other} would both write {plan.out.place(files[0])}; predict them into different folders"
            )
        sources[files[0]] = name


def _identities(store: Store, names: Iterable[str]) -> dict[str, None]:
    """What is the same for two names of one file, in their order."""
    if store.local is None:
        return dict.fromkeys(store.place(name) for name in names)
    folders: dict[str, str] = {}
    found = dict[str, None]()
    for name in names:
        path = os.path.join(store.local, name)
        folder, last = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found[os.path.realpath(path) if os.path.islink(path) else os.path.join(folders[folder], last)] = None
    return found


def _is_image(name: str) -> bool:
    return is_data(name) and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _before_wildcard(parts: Sequence[str]) -> Sequence[str]:
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return parts[:first]


def _no_images(inputs: str | Path) -> DataError:
    return DataError(f"{inputs}: no images there; give an image, a folder of images or a pattern")


def _apart(where: str) -> DataError:
    return DataError(f"{where}: its images lie in several stores; predict each store's by themselves")


def _among_images(out: str | Path) -> DataError:
    return DataError(f"{out}: results would lie among the images themselves; choose another folder for -o")
