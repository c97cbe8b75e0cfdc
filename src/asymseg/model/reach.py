"""How far a backbone looks: which pixels of an image one cell of its maps depends on.

It is measured and not computed from a list of layers, so it holds for any module. Pixels at both ends of an image are
made NaN, which every sum and maximum that takes one passes on; cells that stay numbers depend on none of them. A
second run, on an image without its first rows, shows that the cells are the same ones wherever the image begins.
"""

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.errors import ConfigError
from asymseg.model.winograd import WinogradConv2d

LENGTHS = (512, 1024, 4096)
"""Sides in pixels of the images that are tried, each once the one before was too short; a quarter is the most found."""
WIDTH = 32
"""The other side; each axis has its turn."""


@dataclass(frozen=True)
class Reach:
    """How the maps of a backbone lie over an image."""

    strides: tuple[int, int]
    """Pixels per cell of the two maps."""
    multiple: int
    """What the sides of an image are padded to before the backbone takes it."""
    align: int
    """A part of an image has the image's own cells if it lacks a multiple of this before it, and of this behind it."""
    radius: int | None
    """Pixels beyond its own that a cell depends on; None where it depends on all, as behind a global average."""


@torch.no_grad()
def measure_reach(backbone: nn.Module, channels: int) -> Reach:
    """How the backbone's maps lie over images of so many channels, and how far it looks.

    Raises ConfigError where its maps are not of ceil(size / stride) cells.
    """
    probe = copy.deepcopy(backbone).cpu().float().eval()  # where no arithmetic is rough
    for module in probe.modules():
        if isinstance(module, WinogradConv2d):
            module.predicting = False  # a tile of its outputs is made of the inputs of all of them
    multiple = int(getattr(backbone, "size_multiple", 1))
    strides = _strides(probe, multiple, channels)
    base = math.lcm(multiple, *strides)
    for length in LENGTHS:
        # A remainder decides how layers that pad "same" share out their padding.
        sides = [(length - length % base + more, axis) for axis in (2, 3) for more in {0, multiple % base}]
        cut = max(base, length // 4 // base * base)
        radius = max(_radius(probe, side, strides, cut, channels) for side in sides)
        if radius <= cut:
            break
    else:
        return Reach(strides, multiple, base, None)
    for align in (base, 2 * base, 4 * base, 8 * base):
        if all(_moves_along(probe, axis, strides, align, radius, channels) for axis in (2, 3)):
            return Reach(strides, multiple, align, radius)
    return Reach(strides, multiple, base, None)


def _strides(probe: nn.Module, multiple: int, channels: int) -> tuple[int, int]:
    even = math.lcm(128, multiple)
    sizes = even, even + (1 if multiple == 1 else multiple)
    shapes = [[x.shape[2:] for x in probe(torch.zeros(1, channels, size, size))] for size in sizes]
    strides = [even // shape[0] if shape[0] else 0 for shape in shapes[0]]
    for size, maps in zip(sizes, shapes, strict=True):
        for shape, stride in zip(maps, strides, strict=True):
            if stride < 1 or tuple(shape) != (-(-size // stride),) * 2:
                raise ConfigError(
                    f"the backbone {type(probe).__name__} gives a map of {tuple(shape)} for an image of "
                    f"{(size, size)}, so no whole number of pixels per cell; it cannot be run tile by tile"
                )
    return strides[0], strides[1]


def _radius(probe: nn.Module, side: tuple[int, int], strides: tuple[int, int], cut: int, channels: int) -> int:
    """How far the two maps look along an axis, seen from cuts near both ends of an image; its length if over all of it.

    It is right where it is at most `cut`: a kernel with gaps reaches over a narrower one.
    """
    length, axis = side
    image = torch.zeros(1, channels, length, WIDTH)
    image[:, :, :cut] = image[:, :, length - cut :] = math.nan
    radius = 0
    for x, stride in zip(_run(probe, image, axis), strides, strict=True):
        clean = (~x.isnan().any(dim=1)[0].any(dim=1)).nonzero().flatten()
        if len(clean) == 0:
            return length
        first, last = int(clean[0]), int(clean[-1])
        radius = max(radius, first * stride - cut, length - cut - (last + 1) * stride)
    return radius


def _moves_along(probe: nn.Module, axis: int, strides: tuple[int, int], align: int, radius: int, channels: int) -> bool:
    """Whether an image that lacks its first rows has the same cells, from `radius` behind the cut on."""
    length = 2 * radius + 4 * align
    noise = torch.randn(1, channels, length, WIDTH, generator=torch.Generator().manual_seed(0))
    whole, part = _run(probe, noise, axis), _run(probe, noise[:, :, align:], axis)
    for ours, theirs, stride in zip(part, whole, strides, strict=True):
        begin = -(-radius // stride)
        expected = theirs[:, :, begin + align // stride :]
        if not torch.allclose(ours[:, :, begin:], expected, rtol=0, atol=1e-4 * float(expected.abs().max())):
            return False
    return True


def _run(probe: nn.Module, image: Float[Tensor, "1 c h w"], axis: int) -> list[Float[Tensor, "1 d i j"]]:
    """The two maps of an image that lies along its rows or, for axis 3, along its columns; padded as networks do."""
    multiple = int(getattr(probe, "size_multiple", 1))
    image = image if axis == 2 else image.transpose(2, 3)
    image = F.pad(image, (0, -image.shape[3] % multiple, 0, -image.shape[2] % multiple))
    maps = probe(image.contiguous())
    return [x if axis == 2 else x.transpose(2, 3) for x in maps]
