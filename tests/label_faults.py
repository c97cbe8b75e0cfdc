"""A clean made-up data set, and faults of every kind to plant into it or into any other set of the same layout."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {
    "classes": ["ground", "disc", "bar", "frame"],
    "palette": [[90, 60, 30], [220, 40, 40], [40, 80, 220], [240, 240, 60]],
}


def make_clean(root: Path, train: int, val: int) -> None:
    """Images of noise with two discs, a bar and a frame, and their masks as palette PNGs."""
    for number in range(train + val):
        image, mask = scene(number)
        split = "train" if number < train else "val"
        save_image(root / "images" / split / f"{number:03d}.jpg", image)
        save_mask(root / "masks" / split / f"{number:03d}.png", mask, CLASSES["palette"])
    (root / "classes.json").write_text(json.dumps(CLASSES))


def scene(number: int, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=np.uint8)
    for _ in range(2):
        row, column, radius = rng.integers(15, height - 15), rng.integers(15, width - 15), rng.integers(7, 12)
        mask[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 1
    start = rng.integers(5, width - 15)
    mask[:, start : start + 6] = 2
    mask[:4] = mask[-4:] = 3
    colours = rng.integers(20, 236, (4, 3))
    light = (rows * rng.uniform(-0.5, 0.5) + columns * rng.uniform(-0.5, 0.5))[..., None]
    return np.clip(colours[mask] + light + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8), mask


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92)


def save_mask(path: Path, ids: np.ndarray, palette: list[list[int]] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids)
    if palette is not None:
        picture.putpalette([part for colour in palette for part in colour])
    picture.save(path)


@dataclass(frozen=True)
class Place:
    """A pair of train to spoil, another one and one of val that a fault may need."""

    image: Path
    mask: Path
    other_image: Path
    other_mask: Path
    val_image: Path
    val_mask: Path

    def pixels(self) -> np.ndarray:
        return np.asarray(Image.open(self.image))

    def ids(self) -> np.ndarray:
        return np.asarray(Image.open(self.mask))


def places(root: Path) -> list[Place]:
    """Room for as many faults as the set has pairs of train and of val."""
    train, val = (
        [(image, root / "masks" / split / f"{image.stem}.png") for image in sorted((root / "images" / split).iterdir())]
        for split in ("train", "val")
    )
    count = min(len(train) // 2, len(val))
    return [Place(*train[2 * number], *train[2 * number + 1], *val[number]) for number in range(count)]


Told = list[tuple[str, Path]]
"""The kind of each finding that must name a file, and the file."""

Fault = Callable[[Place], Told]


def no_mask(place: Place) -> Told:
    place.mask.unlink()
    return [("missing-mask", place.image)]


def mask_of_another_suffix(place: Place) -> Told:
    place.mask.rename(place.mask.with_suffix(".gif"))
    return [("missing-mask", place.image)]


def no_image(place: Place) -> Told:
    place.image.unlink()
    return [("missing-image", place.mask)]


def capitals(place: Place) -> Told:
    image, mask = place.image.with_name("X" + place.image.name), place.mask.with_name("x" + place.mask.name)
    place.image.rename(image)
    place.mask.rename(mask)
    return [("missing-mask", image), ("missing-image", mask)]


def two_of_a_name(place: Place) -> Told:
    twin = place.image.with_suffix(".png")
    Image.fromarray(255 - place.pixels()).save(twin)
    return [("same-name", twin), ("same-name", place.image)]


def image_cut_short(place: Place) -> Told:
    place.image.write_bytes(place.image.read_bytes()[: place.image.stat().st_size // 2])
    return [("unreadable-image", place.image)]


def image_empty(place: Place) -> Told:
    place.image.write_bytes(b"")
    return [("unreadable-image", place.image)]


def image_not_finite(place: Place) -> Told:
    pixels = place.pixels().astype(np.float32) / 255
    pixels[3, 4, 1] = np.nan
    place.image.unlink()
    np.save(place.image.with_suffix(".npy"), pixels)
    return [("unreadable-image", place.image.with_suffix(".npy"))]


def image_constant(place: Place) -> Told:
    Image.fromarray(np.zeros_like(place.pixels())).save(place.image)
    return [("constant-image", place.image)]


def image_grey(place: Place) -> Told:
    Image.open(place.image).convert("L").save(place.image)
    return [("mixed-images", place.image)]


def exif_on_its_side(place: Place) -> Told:
    _save_turned(place, 6)
    return [("size", place.mask)]


def exif_upside_down(place: Place) -> Told:
    _save_turned(place, 3)
    return [("turned-image", place.image)]


def _save_turned(place: Place, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(place.pixels()).save(place.image, exif=exif, quality=90)


def mask_cut_short(place: Place) -> Told:
    place.mask.write_bytes(place.mask.read_bytes()[:-40])
    return [("unreadable-mask", place.mask)]


def mask_of_text(place: Place) -> Told:
    place.mask.write_text("version https://git-lfs.github.com/spec/v1\n")
    return [("unreadable-mask", place.mask)]


def mask_of_floats(place: Place) -> Told:
    np.save(place.mask.with_suffix(".npy"), place.ids() / 4)
    place.mask.unlink()
    return [("unreadable-mask", place.mask.with_suffix(".npy"))]


def mask_as_jpeg(place: Place) -> Told:
    Image.fromarray(place.ids() * 20).save(place.mask, format="JPEG")
    return [("lossy-mask", place.mask)]


def mask_was_jpeg(place: Place) -> Told:
    Image.fromarray(place.ids() * 20).save(place.mask, format="JPEG", quality=60)
    Image.fromarray(np.asarray(Image.open(place.mask))).save(place.mask, format="PNG")
    return [("smeared-mask", place.mask)]


def mask_interpolated(place: Place) -> Told:
    """Ids as they are, only the borders soft."""
    ids = Image.fromarray(place.ids())
    third = ids.size[0] // 3, ids.size[1] // 3
    ids.resize(third, Image.Resampling.NEAREST).resize(ids.size, Image.Resampling.BILINEAR).save(place.mask)
    return [("smeared-mask", place.mask)]


def colours_with_soft_edges(place: Place) -> Told:
    picture = Image.open(place.mask).convert("RGB")
    third = picture.size[0] // 3, picture.size[1] // 3
    picture.resize(third, Image.Resampling.NEAREST).resize(picture.size, Image.Resampling.BILINEAR).save(place.mask)
    return [("smeared-mask", place.mask)]


def undeclared_id(place: Place) -> Told:
    ids = place.ids().copy()
    ids[10:20, 10:20] = 77
    save_mask(place.mask, ids)
    return [("undeclared-ids", place.mask)]


def sixteen_bits(place: Place) -> Told:
    Image.fromarray(place.ids().astype(np.uint16) * 257).save(place.mask)
    return [("undeclared-ids", place.mask)]


def undeclared_colour(place: Place) -> Told:
    colours = np.array(Image.open(place.mask).convert("RGB"))
    colours[10:20, 10:20] = (1, 2, 3)
    Image.fromarray(colours).save(place.mask)
    return [("undeclared-colours", place.mask), ("mixed-masks", place.mask)]


def colours_among_ids(place: Place) -> Told:
    Image.open(place.mask).convert("RGB").save(place.mask)
    return [("mixed-masks", place.mask)]


def photograph_as_mask(place: Place) -> Told:
    noise = np.random.default_rng(7).integers(0, 256, place.pixels().shape, dtype=np.uint8)
    Image.fromarray(noise).save(place.mask)
    return [("picture-as-mask", place.mask)]


def half_the_size(place: Place) -> Told:
    save_mask(place.mask, place.ids()[::2, ::2].copy())
    return [("size", place.mask)]


def on_its_side(place: Place) -> Told:
    save_mask(place.mask, np.ascontiguousarray(place.ids().T))
    return [("size", place.mask)]


def cropped(place: Place) -> Told:
    save_mask(place.mask, place.ids()[5:].copy())
    return [("size", place.mask)]


def all_ignored(place: Place) -> Told:
    save_mask(place.mask, np.full_like(place.ids(), 255))
    return [("all-ignored", place.mask)]


def mostly_ignored(place: Place) -> Told:
    ids = np.full_like(place.ids(), 255)
    ids[10:14, 10:14] = 1
    save_mask(place.mask, ids)
    return [("mostly-ignored", place.mask)]


def colours_swapped(place: Place) -> Told:
    with Image.open(place.mask) as opened:
        palette = opened.getpalette("RGB") or []
    colours = [palette[3 * number : 3 * number + 3] for number in range(len(palette) // 3)]
    save_mask(place.mask, place.ids(), [colours[3], *colours[1:3], colours[0], *colours[4:]])
    return [("palette", place.mask)]


def copied_within(place: Place) -> Told:
    place.image.write_bytes(place.other_image.read_bytes())
    place.mask.write_bytes(place.other_mask.read_bytes())
    return [("duplicate-within", place.image), ("duplicate-within", place.other_image)]


def copied_to_val(place: Place) -> Told:
    place.val_image.write_bytes(place.image.read_bytes())
    place.val_mask.write_bytes(place.mask.read_bytes())
    return [("duplicate-across", place.image), ("duplicate-across", place.val_image)]


def labelled_twice(place: Place) -> Told:
    place.image.write_bytes(place.other_image.read_bytes())
    both = [("duplicate-within", place.image), ("duplicate-within", place.other_image)]
    return [*both, ("contradiction", place.mask), ("contradiction", place.other_mask)]


def saved_anew_to_val(place: Place) -> Told:
    Image.fromarray(place.pixels()).save(place.val_image, quality=60)
    place.val_mask.write_bytes(place.mask.read_bytes())
    return [("near-duplicate-across", place.image), ("near-duplicate-across", place.val_image)]


def resized_to_val(place: Place) -> Told:
    picture, mask = Image.fromarray(place.pixels()), Image.open(place.mask)
    double = picture.size[0] * 2, picture.size[1] * 2
    picture.resize(double, Image.Resampling.BICUBIC).save(place.val_image, quality=92)
    mask.resize(double, Image.Resampling.NEAREST).save(place.val_mask)
    return [("near-duplicate-across", place.image), ("near-duplicate-across", place.val_image)]


def mirrored_within(place: Place) -> Told:
    mirrored = Image.open(place.other_image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(place.image, quality=80)
    Image.open(place.other_mask).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place.mask)
    return [("near-duplicate-within", place.image), ("near-duplicate-within", place.other_image)]


def mask_of_another(place: Place) -> Told:
    place.mask.write_bytes(place.other_mask.read_bytes())
    return [("repeated-mask", place.mask), ("repeated-mask", place.other_mask)]


FAULTS: tuple[Fault, ...] = (
    no_mask, mask_of_another_suffix, no_image, capitals, two_of_a_name,
    image_cut_short, image_empty, image_not_finite, image_constant, image_grey, exif_on_its_side, exif_upside_down,
    mask_cut_short, mask_of_text, mask_of_floats, mask_as_jpeg, mask_was_jpeg, mask_interpolated,
    colours_with_soft_edges, undeclared_id, sixteen_bits, undeclared_colour, colours_among_ids, photograph_as_mask,
    half_the_size, on_its_side, cropped, all_ignored, mostly_ignored, colours_swapped,
    copied_within, copied_to_val, labelled_twice, saved_anew_to_val, resized_to_val, mirrored_within, mask_of_another,
)  # fmt: skip
