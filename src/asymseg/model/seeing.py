"""How a model looks at an image: whole or by windows, at which sizes, mirrored or not, and how that is joined."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from asymseg.errors import ConfigError

Mode = Literal["whole", "slide"]
Weighting = Literal["flat", "tapered"]
Average = Literal["probabilities", "logits", "mixed"]


@dataclass(frozen=True)
class Form:
    """One of the forms in which a network sees an image."""

    seen: tuple[int, int]
    """Height and width of the image in this form."""
    shown: tuple[int, int]
    """Height and width of what the network sees at once."""
    mirrored: bool

    @property
    def whole(self) -> bool:
        """Whether it is seen in one piece, and not by windows."""
        return self.shown == self.seen


@dataclass(frozen=True)
class Seeing:
    """What the network is shown of an image, and how its answers become one. Raises ConfigError.

    The network sees the image once for each of `scales`, and once more mirrored with `flip`: each of these is a view.
    In the mode "slide" it sees each view by overlapping windows.
    """

    mode: Mode = "whole"
    window: tuple[int, int] = (512, 512)
    """Height and width of the windows, in pixels of the scaled image; a smaller image is seen in one piece."""
    stride: tuple[int, int] | None = None
    """From one window to the next, down and across; None is two thirds of the window."""
    weighting: Weighting = "flat"
    """Whether each window counts alike, or less towards its border."""
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: Average = "probabilities"
    """What is averaged. The authors' code sums logits, which has the same largest class as their mean: "logits".
    "probabilities" takes the softmax of each window and each view first. "mixed" joins windows by logits and views by
    probabilities, as mmsegmentation and PaddleSeg do; it differs from "probabilities" in the mode "slide" alone.
    """

    def __post_init__(self) -> None:
        for name, kind in (("mode", Mode), ("weighting", Weighting), ("average", Average)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(get_args(kind))}")
        given = {"window": self.window, "stride": self.stride or self.window}
        for name, sides in given.items():
            if not _is_size(sides):
                raise ConfigError(f"{name} must be a height and a width of at least 1 pixel, not {sides!r}")
        if any(step > side for step, side in zip(self.steps, self.window, strict=True)):
            raise ConfigError(
                f"a stride of {_size(self.steps)} leaves gaps between windows of {_size(self.window)}; choose at most "
                "the window"
            )
        if not self.scales or not all(math.isfinite(scale) and scale > 0 for scale in self.scales):
            raise ConfigError(f"scales must be numbers above 0, not {self.scales}")

    @property
    def steps(self) -> tuple[int, int]:
        """`stride` in pixels."""
        return self.stride or (-(-2 * self.window[0] // 3), -(-2 * self.window[1] // 3))

    def forms(self, size: tuple[int, int]) -> tuple[Form, ...]:
        """All the forms in which the network sees an image of `size`: scale by scale, each upright, then mirrored."""
        forms = []
        for scale in self.scales:
            seen = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
            window = (min(seen[0], self.window[0]), min(seen[1], self.window[1])) if self.mode == "slide" else seen
            forms += [Form(seen, window, mirrored) for mirrored in ((False, True) if self.flip else (False,))]
        return tuple(forms)

    def changed(
        self,
        mode: Mode | None = None,
        window: tuple[int, int] | None = None,
        stride: tuple[int, int] | None = None,
        weighting: Weighting | None = None,
        scales: tuple[float, ...] | None = None,
        flip: bool | None = None,
        average: Average | None = None,
    ) -> "Seeing":
        """The same but for what is given. A window that comes without a stride moves by two thirds of itself."""
        for name, value in (("window", window), ("stride", stride), ("weighting", weighting)):
            if value is not None and mode is None and self.mode == "whole":
                raise ConfigError(f"{name} has no effect in the mode whole, which this model has; add the mode slide")
        return replace(
            self,
            mode=self.mode if mode is None else mode,
            window=self.window if window is None else window,
            stride=self.stride if stride is None and window is None else stride,
            weighting=self.weighting if weighting is None else weighting,
            scales=self.scales if scales is None else scales,
            flip=self.flip if flip is None else flip,
            average=self.average if average is None else average,
        )

    def __str__(self) -> str:
        """In words, for reports."""
        parts = [f"scale {', '.join(f'{scale:g}' for scale in self.scales)}"]
        if self.flip:
            parts.append("also mirrored")
        if self.mode == "slide":
            parts.append(f"{self.weighting} windows of {_size(self.window)}, stride {_size(self.steps)}")
        if self.mode == "slide" or len(self.scales) > 1 or self.flip:
            averaged = "logits of windows and probabilities of views" if self.average == "mixed" else self.average
            parts.append(f"{averaged} averaged")
        return ", ".join(parts)


def _is_size(sides: object) -> bool:
    return isinstance(sides, tuple) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)


def _size(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"
