"""Finding the parts of a download, and saying in one line what was expected where one is missing."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from asymseg.data.pairing import listed
from asymseg.errors import DataError

_SHOWN = 5


def find_folder(root: Path, names: Iterable[str], expected: str) -> Path:
    """The first of the folders `names` there is below `root`. Raises DataError with what was `expected` there."""
    found = optional_folder(root, names)
    if found is None:
        raise not_there(root, expected)
    return found


def optional_folder(root: Path, names: Iterable[str]) -> Path | None:
    """The first of the folders `names` there is below `root`, or None; "." is `root` itself."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def not_there(root: Path, expected: str) -> DataError:
    """What to raise where `root` does not hold what was expected."""
    if not root.exists():
        return DataError(f"{root}: no such folder; expected {expected}")
    if not root.is_dir():
        return DataError(f"{root}: a file, not a folder; expected {expected}")
    there = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    return DataError(f"{root}: expected {expected}; found {listed(there, _SHOWN) or 'nothing'}")


def files_by_stem(folder: Path, ending: str, *, below: bool = False) -> dict[str, Path]:
    """The files named STEM + `ending` in a folder, or also in those below it, by STEM; sorted."""
    paths = folder.rglob(f"*{ending}") if below else folder.glob(f"*{ending}")
    found = {path.name.removesuffix(ending): path for path in paths if not path.name.startswith(".")}
    return dict(sorted(found.items()))


def read_list(path: Path) -> tuple[str, ...]:
    """The names in a list of a split, one per line; what stands behind a name, such as a flag, is dropped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a list of names ({error}); download it again") from None
    names = tuple(line.split()[0] for line in lines if line.strip())
    if not names:
        raise DataError(f"{path}: lists no image; download it again")
    return names


def is_file(path: Path) -> bool:
    """Whether there is such a file; not, too, where no file can be called so, as by a name of 300 letters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def need_files(files: Mapping[str, Path], names: Iterable[str], folder: Path, what: str) -> None:
    """Raises DataError where one of `names` has no file."""
    names = list(names)
    lacking = [name for name in names if name not in files]
    if lacking:
        raise DataError(
            f"{folder}: no {what} for {len(lacking)} of {len(names)} images: {listed(lacking, _SHOWN)}; "
            "the download may be incomplete: unpack it again"
        )


def names_of(files: Sequence[str]) -> list[str]:
    """Names of images that one file lists: without their suffixes, but where two would then be called the same."""
    stems = [Path(file).with_suffix("").as_posix() for file in files]
    shared = {stem for stem, count in Counter(stems).items() if count > 1}
    return [Path(file).as_posix() if stem in shared else stem for file, stem in zip(files, stems, strict=True)]
