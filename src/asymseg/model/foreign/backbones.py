"""What the dialects' ResNets have in common: their size read off the weights, timm's name for it, timm's modules.

A dialect is a function from timm's module names to its own, such as `conv1.3` -> `stem.3`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from asymseg.classes import MAX_CLASSES
from asymseg.errors import CheckpointError

Rename = Callable[[str], str]

DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
LETTERS = {(None, False): "", (32, False): "c", (64, False): "s", (32, True): "d"}
"""Width of a deep stem, None for one 7x7 convolution, and whether shortcuts pool: timm's letter after the depth."""
WIDTH = 64
MOST_BLOCKS = 200
WIDEST = 2**15


@dataclass(frozen=True)
class ResNetSize:
    """A ResNet of bottleneck blocks, as its weights tell."""

    blocks: tuple[int, int, int, int]
    width: int
    """Inner channels of the first stage."""
    stem: int | None
    """Channels of a deep stem's first convolution, or None for one 7x7 convolution."""
    pooled: bool
    """Whether shortcuts pool before their convolution."""

    @property
    def channels(self) -> tuple[int, int]:
        """Of the two last stages."""
        return 16 * self.width, 32 * self.width


def width_of(tensors: Mapping[str, Tensor], key: str, default: int) -> int:
    """The channels that a weight gives, or `default` where there is none; raises CheckpointError for a mad number."""
    tensor = tensors.get(key)
    if tensor is None or tensor.dim() == 0:
        return default  # what is wrong with it is said when all keys are compared
    size = tensor.shape[0]
    if not 0 < size <= WIDEST:
        raise CheckpointError(f"{key} has {size} channels; no network like that was ever published")
    return size


def class_count(tensors: Mapping[str, Tensor], classifier: str) -> int:
    """How many classes a classifier has. Raises CheckpointError for more than masks can hold."""
    count = width_of(tensors, f"{classifier}.weight", 19)
    if count > MAX_CLASSES:
        raise CheckpointError(f"its classifier has {count} classes, and asymseg's masks hold {MAX_CLASSES} at most")
    return count


def resnet_size(tensors: Mapping[str, Tensor], theirs: Rename) -> ResNetSize:
    """The size of the ResNet whose weights are among `tensors`. Raises CheckpointError for blocks of two layers."""

    def has(module: str) -> bool:
        return f"{theirs(module)}.weight" in tensors

    blocks = [
        max((block for block in range(MOST_BLOCKS) if has(f"layer{stage}.{block}.conv1")), default=0) + 1
        for stage in (1, 2, 3, 4)
    ]
    if has("layer1.0.conv2") and not any(has(f"layer{stage}.0.conv3") for stage in (1, 2, 3, 4)):
        raise CheckpointError(
            "its ResNet has blocks of two convolutions, as 18 and 34 layers have, and asymseg takes those of three: "
            "50, 101 and 152 layers"
        )
    shortcut = tensors.get(f"{theirs('layer1.0.downsample.1')}.weight")
    return ResNetSize(
        (blocks[0], blocks[1], blocks[2], blocks[3]),
        width_of(tensors, f"{theirs('layer1.0.conv1')}.weight", WIDTH),
        width_of(tensors, f"{theirs('conv1.0')}.weight", 32) if has("conv1.0") or not has("conv1") else None,
        shortcut is not None and shortcut.dim() == 4,  # a convolution, so something stands before it
    )


def backbone_name(size: ResNetSize, *changes: str) -> str:
    """The name by which `asymseg.model.backbone` makes a ResNet of this size, with `asymseg.model.resnet`'s changes."""
    stem = 32 if size.stem is None and size.pooled else size.stem
    letter = LETTERS.get((stem, size.pooled), "d" if size.pooled else "c")
    name = f"resnet{DEPTHS.get(size.blocks, 50)}{letter}"
    parts = [name, *changes]
    if stem is not None and LETTERS.get((stem, size.pooled)) is None:
        parts.append(f"stem={stem}")
    if size.blocks not in DEPTHS:
        parts.append(f"blocks={','.join(map(str, size.blocks))}")
    if size.width != WIDTH:
        parts.append(f"width={size.width}")
    return "+".join(parts)


def resnet_modules(size: ResNetSize) -> list[str]:
    """timm's names of all convolutions and BatchNorms, in order."""
    stem = ["conv1"] if size.stem is None else ["conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6"]
    names = [*stem, "bn1"]
    first = 1 if size.pooled else 0
    for stage, count in enumerate(size.blocks, start=1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            names += [f"{place}.{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn")]
            if block == 0:
                names += [f"{place}.downsample.{first}", f"{place}.downsample.{first + 1}"]
    return names
