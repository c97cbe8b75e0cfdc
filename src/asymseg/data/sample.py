"""The sample scenes: grey discs whose class only a look at the whole image can tell."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from asymseg.atomic import atomic_folder
from asymseg.classes import Classes
from asymseg.data.pixels import write_mask
from asymseg.errors import DataError

SAMPLE_CLASSES = Classes(
    names=("ground", "beacon", "red disc", "green disc", "blue disc"),
    palette=((110, 100, 80), (250, 220, 60), (220, 50, 50), (50, 180, 70), (60, 90, 220)),
)

_DISCS = 6
_RADII = (6, 10)
_BEACON = 12
_DISC_GREY = 150.0
_BEACON_COLOURS = ((220, 40, 40), (40, 200, 40), (40, 40, 220))
_SPLIT_STARTS = {"train": 0, "val": 1_000_000, "test": 2_000_000}


def make_scene(
    number: int, height: int = 96, width: int = 192
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Image and mask of the scene of that number, always the same.

    Six grey discs lie on noisy ground, and somewhere a square beacon, red, green or blue. Its colour is the class of
    all discs; the discs themselves look alike in all scenes.
    """
    rng = np.random.default_rng((1908, number))
    colour = int(rng.integers(3))
    top, left = int(rng.integers(height - _BEACON + 1)), int(rng.integers(width - _BEACON + 1))
    rows, columns = np.ogrid[:height, :width]
    image = np.full((height, width, 3), 90.0)
    mask = np.zeros((height, width), dtype=np.uint8)
    for y, x, radius in _place_discs(height, width, top, left, rng):
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        image[disc], mask[disc] = _DISC_GREY, 2 + colour
    image[top : top + _BEACON, left : left + _BEACON] = _BEACON_COLOURS[colour]
    mask[top : top + _BEACON, left : left + _BEACON] = 1
    image += rng.normal(0, 20, image.shape) * (mask == 0)[..., None]
    return image.round().clip(0, 255).astype(np.uint8), mask


def write_sample(folder: Path, train: int = 256, val: int = 64, test: int = 64) -> None:
    """Write scenes as a data set into a folder that is new or empty; whole or not at all."""
    folder = folder.resolve()
    if min(train, val, test) < 0:
        raise DataError(f"{folder}: {train}, {val} and {test} scenes to train, val and test; give 0 or more of each")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: already there and not an empty folder; choose another name, or remove it")
    with atomic_folder(folder) as part:
        for split, count in (("train", train), ("val", val), ("test", test)):
            if count:  # a part without images would be refused by whoever reads it
                _write_split(part, split, count)
        content = json.dumps(SAMPLE_CLASSES.to_dict(), indent=1)
        (part / "classes.json").write_text(content + "\n", encoding="utf-8")


def _place_discs(height: int, width: int, top: int, left: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Centres and radii of discs that lie inside the scene and touch neither each other nor the beacon."""
    middle_y, middle_x = top + (_BEACON - 1) / 2, left + (_BEACON - 1) / 2
    discs: list[tuple[int, int, int]] = []
    for _ in range(10_000):
        radius = int(rng.integers(_RADII[0], _RADII[1] + 1))
        if min(height, width) <= 2 * radius:
            continue
        y, x = int(rng.integers(radius, height - radius)), int(rng.integers(radius, width - radius))
        outside_y = max(abs(y - middle_y) - _BEACON / 2, 0.0)
        outside_x = max(abs(x - middle_x) - _BEACON / 2, 0.0)
        free = outside_y**2 + outside_x**2 > (radius + 1) ** 2
        if free and all((y - v) ** 2 + (x - u) ** 2 > (radius + r + 1) ** 2 for v, u, r in discs):
            discs.append((y, x, radius))
        if len(discs) == _DISCS:
            return discs
    raise ValueError(f"a scene of {height} x {width} pixels has no room for {_DISCS} discs")


def _write_split(folder: Path, split: str, count: int) -> None:
    for kind in ("images", "masks"):
        (folder / kind / split).mkdir(parents=True)
    for number in range(count):
        image, mask = make_scene(_SPLIT_STARTS[split] + number)
        Image.fromarray(image).save(folder / "images" / split / f"{number:04d}.png")
        write_mask(folder / "masks" / split / f"{number:04d}.png", mask, SAMPLE_CLASSES)
