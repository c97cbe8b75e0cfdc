"""Result: what a model says about one image, and what gives it. Needs no torch."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.pixels import write_mask
from asymseg.errors import ConfigError, DataError
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Average, Mode, Weighting
from asymseg.prediction.attention import Attending, Attention
from asymseg.prediction.overlay import Picture, draw_overlay


class Result:
    """What a model says about one image."""

    mask: UInt8[np.ndarray, "h w"]
    """Class ids."""
    classes: Classes
    image: Picture
    """The image as it was seen, C H W."""

    def __init__(
        self,
        mask: UInt8[np.ndarray, "h w"],
        classes: Classes,
        image: Picture,
        probabilities: Callable[[], Float[np.ndarray, "n h w"]],
        attend: Callable[[], Attending] | None = None,
        rows: Callable[[slice], Float[np.ndarray, "n r w"]] | None = None,
        held: int = 0,
    ) -> None:
        """`rows` gives the probabilities of some rows, for less; `held` is the bytes of what all these work from."""
        self.mask, self.classes, self.image = mask, classes, image
        self._probabilities, self._attend, self._rows, self._held = probabilities, attend, rows, held

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n h w"]:
        """Of each class, adding up to 1 at each pixel; made when first asked for, since they are large."""
        return self._probabilities()

    def probabilities_at(self, row: int, column: int) -> Float[np.ndarray, " n"]:
        """Those of one pixel, without making those of all where that can be. Raises DataError."""
        height, width = self.mask.shape
        if not (0 <= row < height and 0 <= column < width):
            raise DataError(f"row {row}, column {column}: not within the image of {height} rows and {width} columns")
        if self._rows is None:
            return self.probabilities[:, row, column]
        return self._rows(slice(row, row + 1))[:, 0, column]

    @property
    def nbytes(self) -> int:
        """The memory that it holds by now; asking for probabilities or attention adds to it."""
        made = self.__dict__
        more = made["probabilities"].nbytes if "probabilities" in made else 0
        more += made["_attending"].nbytes if "_attending" in made else 0
        return int(self.mask.nbytes + self.image.nbytes + self._held + more)

    def attention(self, row: int, column: int) -> Attention:
        """The regions of the image that one of its pixels drew on, block by block, with `picture()`.

        The network is run once more when this is first asked for, and the weights of all pixels are kept. Raises
        ConfigError where it saw the image in parts or several times, or has no block that looks at regions; DataError
        for a place outside the image.
        """
        return self._attending.at(row, column)

    @cached_property
    def _attending(self) -> Attending:
        if self._attend is None:
            _apart()
        return self._attend()

    def __getstate__(self) -> dict[str, Any]:
        """All but the way back to the network, which may be large."""
        return {
            **self.__dict__,
            "_attend": None,
            "_probabilities": _apart if self._rows is None else self._probabilities,
        }

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The image with the classes' colours over it."""
        return draw_overlay(self.image, self.mask, self.classes, opacity)

    def save(self, path: str | Path) -> None:
        """Write the mask as a palette PNG of class ids, whole or not at all."""
        write_mask(Path(path), self.mask, self.classes)


def _apart() -> NoReturn:
    raise ConfigError("this result is apart from its network; predict the image again and ask there")


@runtime_checkable
class AnyPredictor(Protocol):
    """A network, or an exported file in its place: `Predictor` and `OnnxPredictor`."""

    info: ModelInfo

    def seeing(
        self,
        *,
        mode: Mode | None = None,
        window: tuple[int, int] | None = None,
        stride: tuple[int, int] | None = None,
        weighting: Weighting | None = None,
        scales: tuple[float, ...] | None = None,
        flip: bool | None = None,
        average: Average | None = None,
    ) -> Self:
        """The same predictor, to see images otherwise: the words are those of `Seeing`, None keeps the model's own.

        Raises ConfigError.
        """
        other = copy.copy(self)
        seeing = self.info.seeing.changed(mode, window, stride, weighting, scales, flip, average)
        other.info = replace(self.info, seeing=seeing)
        return other

    def __call__(self, source: str | Path | Image.Image | np.ndarray, *, keep: bool = True) -> Result:
        """What is said of an image; with `keep` its probabilities can be had without a second look."""
