"""Result: what a model says about one image. Needs no torch."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.pixels import write_mask
from asymseg.errors import ConfigError
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
    ) -> None:
        self.mask, self.classes, self.image = mask, classes, image
        self._probabilities, self._attend = probabilities, attend

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n h w"]:
        """Of each class, adding up to 1 at each pixel; made when first asked for, since they are large."""
        return self._probabilities()

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
            raise ConfigError("this result is apart from its network; predict the image again and ask there")
        return self._attend()

    def __getstate__(self) -> dict[str, Any]:
        """All but the way back to the network, which may be large."""
        return {**self.__dict__, "_attend": None}

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The image with the classes' colours over it."""
        return draw_overlay(self.image, self.mask, self.classes, opacity)

    def save(self, path: str | Path) -> None:
        """Write the mask as a palette PNG of class ids, whole or not at all."""
        write_mask(Path(path), self.mask, self.classes)
