"""Pictures of one image, as the pages embed them: itself, the truth, predictions, and what is wrong."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.pages import picture_address

PICTURE_WIDTH = 480
"""Pictures are embedded at most this wide."""

WRONG = (214, 69, 32)
"""The page's one accent, kept for mistakes: also `--accent` in the style."""

RIGHT = (31, 119, 145)
"""What only the second of two models has right: also `--better` in the style."""


@dataclass(frozen=True)
class Example:
    """One image of the gallery, as it was judged; 255 in `truth` is ignored."""

    name: str
    miou: float
    image: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]

    def __post_init__(self) -> None:
        if not self.image.shape[:2] == self.truth.shape == self.prediction.shape:
            shapes = f"{self.image.shape}, {self.truth.shape} and {self.prediction.shape}"
            raise ValueError(f"{self.name}: image, truth and prediction must be of one size, not {shapes}")


def pictures(example: Example, classes: Classes, only: tuple[int, int] | None = None) -> list[tuple[str, str]]:
    """Caption and data address of the image, the truth, the prediction and the mistakes.

    With `only`, a label and what it was called, other mistakes are not marked.
    """
    size = _shown(example.truth)
    image = Image.fromarray(example.image).resize(size, Image.Resampling.BOX)
    truth, prediction = (_smaller(mask, size) for mask in (example.truth, example.prediction))
    wrong = truth != prediction if only is None else (truth == only[0]) & (prediction == only[1])
    return [
        ("image", _png(image)),
        ("truth", _png(_coloured(truth, classes))),
        ("prediction", _png(_coloured(prediction, classes))),
        ("mistakes", _png(_marked(image, truth, [(wrong, WRONG)]))),
    ]


def pictures_of_both(
    image: UInt8[np.ndarray, "h w 3"],
    truth: UInt8[np.ndarray, "h w"],
    a: UInt8[np.ndarray, "h w"],
    b: UInt8[np.ndarray, "h w"],
    classes: Classes,
) -> list[tuple[str, str]]:
    """Caption and data address of the image, the truth, both predictions, and where only one of them is right."""
    size = _shown(truth)
    seen = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    label, first, second = (_smaller(mask, size) for mask in (truth, a, b))
    lost, won = (first == label) & (second != label), (first != label) & (second == label)
    return [
        ("image", _png(seen)),
        ("truth", _png(_coloured(label, classes))),
        ("A", _png(_coloured(first, classes))),
        ("B", _png(_coloured(second, classes))),
        ("only one right", _png(_marked(seen, label, [(lost, WRONG), (won, RIGHT)]))),
    ]


def _shown(mask: np.ndarray) -> tuple[int, int]:
    """Width and height at which a picture is embedded."""
    height, width = mask.shape
    if width <= PICTURE_WIDTH:
        return width, height
    return PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width))


def _smaller(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _marked(image: Image.Image, truth: np.ndarray, marks: list[tuple[np.ndarray, tuple[int, int, int]]]) -> Image.Image:
    """The image, faint, with some pixels in colour, and see-through where the label is ignored."""
    grey = np.asarray(image.convert("L"), dtype=np.uint8) // 2 + 112  # faint, so that the marks stand out
    picture = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=2)  # h w rgba
    for where, colour in marks:
        picture[where] = (*colour, 255)
    picture[truth == IGNORE] = 0  # the page's hatching shows
    return Image.fromarray(picture)


def _coloured(mask: np.ndarray, classes: Classes) -> Image.Image:
    picture = Image.fromarray(mask)
    unused = (0,) * (3 * (256 - len(classes)))  # a full palette, so that the ignored id has an entry as well
    picture.putpalette([*(part for colour in classes.palette for part in colour), *unused])
    return picture


def _png(picture: Image.Image) -> str:
    return picture_address(picture, "PNG", **({"transparency": IGNORE} if picture.mode == "P" else {}))
