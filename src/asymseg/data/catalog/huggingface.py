"""Data sets of the Hugging Face library: rows with an image and a mask, decoded where they are asked for."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.decoding import pillow_labels
from asymseg.data.inferring import infer_classes
from asymseg.data.pairing import DataSet, Pair
from asymseg.errors import DataError
from asymseg.model.asking import attempts_unsaid

_IMAGES = ("image", "pixel_values", "img", "images", "picture")
_MASKS = (
    "mask",
    "label",
    "annotation",
    "labels",
    "segmentation",
    "semantic_segmentation",
    "masks",
    "gt",
    "annotations",
)
_PARTS = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}
_NAMES = "id2label.json"


@dataclass(frozen=True)
class RowImage:
    """Reads an image from one row of a table."""

    source: str
    part: str
    column: str
    row: int

    def __call__(self, path: Path) -> Image.Image | np.ndarray:
        """The image, as Pillow opens it."""
        cell = _cell(self)
        return Image.open(io.BytesIO(_content(cell))) if isinstance(cell, Mapping) else np.asarray(cell)


@dataclass(frozen=True)
class RowLabels:
    """Reads a mask from one row of a table."""

    source: str
    part: str
    column: str
    row: int

    def __call__(self, path: Path) -> np.ndarray:
        """Raw ids H W, or colours H W 3."""
        cell = _cell(self)
        if not isinstance(cell, Mapping):
            return np.asarray(cell)
        with Image.open(io.BytesIO(_content(cell))) as opened:
            return pillow_labels(opened, Path(f"{path}, {self.part} row {self.row}"))


def open_huggingface(source: str) -> DataSet:
    """A data set by OWNER/NAME on the hub, with a configuration as OWNER/NAME:CONFIG, or a local folder of one.

    The columns are found by their names. Class names are those of id2label.json, where there is one.
    """
    table = _tables(source)
    found = {split: [word for word in words if word in table] for split, words in _PARTS.items()}
    parts = {split: words[0] for split, words in found.items() if words}
    if not parts:
        known = ", ".join(table) or "none at all"
        raise DataError(f"hf:{source}: no part called train, validation or test; there is {known}")
    columns = _columns(source, table[next(iter(parts.values()))])
    splits = {
        split: tuple(_pair(source, part, row, table[part], columns) for row in range(len(table[part])))
        for split, part in parts.items()
    }
    names = _class_names(source)
    if names is not None:
        return DataSet(Classes(names), splits)
    classes, note = infer_classes([pair for pairs in splits.values() for pair in pairs], Path(source))
    return DataSet(classes, splits, (note.replace("no classes.json", f"no {_NAMES}"),))


def _pair(source: str, part: str, row: int, table: Any, columns: tuple[str, str]) -> Pair:
    """A row; its file is the table's, so that a changed table is read anew."""
    files = table.cache_files
    path = Path(files[0]["filename"]) if files else Path(source)
    image, mask = columns
    return Pair(f"{part}-{row:06d}", path, path, RowImage(source, part, image, row), RowLabels(source, part, mask, row))


@lru_cache(maxsize=4)
def _tables(source: str) -> Any:
    """The parts by their names, images undecoded; opened once in each process that reads."""
    try:
        import datasets
    except ImportError:
        raise DataError(f'hf:{source}: read through the library datasets; pip install "asymseg[formats]"') from None
    folder = Path(source).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
        elif folder.is_dir():
            found = datasets.load_dataset(str(folder))
        else:
            name, _, configuration = source.partition(":")
            with attempts_unsaid():
                found = datasets.load_dataset(name, configuration or None)
        parts = dict(found) if isinstance(found, dict) else {"train": found}
        undecoded = datasets.Image(decode=False)
        for part, table in parts.items():
            table.data.validate(full=True)  # or a damaged file would end the process where a row is read
            for column, kind in table.features.items():
                if isinstance(kind, datasets.Image):
                    table = table.cast_column(column, undecoded)
            parts[part] = table
    except Exception as error:  # whatever a damaged file makes the library stumble over
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        here = folder.is_dir()
        cure = "the whole folder of a data set" if here else "OWNER/NAME, and a network, or a folder"
        raise DataError(f"hf:{source}: {reason}; expected {cure}") from None
    return parts


def _columns(source: str, table: Any) -> tuple[str, str]:
    """Which column holds the images and which the masks."""
    present = {name.casefold(): name for name in table.column_names}
    image = next((present[name] for name in _IMAGES if name in present), None)
    mask = next((present[name] for name in _MASKS if name in present and present[name] != image), None)
    if image is None or mask is None:
        raise DataError(
            f"hf:{source}: expected columns such as image and mask (or label, annotation); "
            f"there is {', '.join(table.column_names)}: rename them by datasets' rename_column"
        )
    return image, mask


def _cell(reader: RowImage | RowLabels) -> Any:
    return _tables(reader.source)[reader.part][reader.row][reader.column]


def _content(cell: Mapping[str, Any]) -> bytes:
    """The bytes of an undecoded image, kept in the table or in a file that it names."""
    content = cell["bytes"]
    return content if content is not None else Path(cell["path"]).read_bytes()


def _class_names(source: str) -> tuple[str, ...] | None:
    """Names from id2label.json, in a local folder or on the hub."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        path = folder / _NAMES
        if not path.is_file():
            return None
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            with attempts_unsaid():
                path = Path(hf_hub_download(source.partition(":")[0], _NAMES, repo_type="dataset"))
        except (HfHubHTTPError, OSError):
            return None
    try:
        names = {int(number): str(name) for number, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f'{path}: not {{"0": NAME, "1": NAME, ...}} ({error}); mend it, or remove it') from None
    return tuple(names[number] for number in range(len(names))) if set(names) == set(range(len(names))) else None
