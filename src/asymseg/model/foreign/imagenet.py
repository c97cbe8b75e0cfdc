"""ImageNet weights for a backbone, as torchvision and mmsegmentation write them, under timm's names."""

from pathlib import Path

from torch import Tensor

from asymseg.model.foreign.reading import read_checkpoint

STEM = {
    "stem.0": "conv1.0",
    "stem.1": "conv1.1",
    "stem.3": "conv1.3",
    "stem.4": "conv1.4",
    "stem.6": "conv1.6",
    "stem.7": "bn1",
}
"""mmsegmentation's modules (`resnet50_v1c`) -> timm's. torchvision's ResNets have timm's names already."""


def read_imagenet(path: Path) -> dict[str, Tensor]:
    """The weights of a file that torch wrote, classifier included. Raises CheckpointError."""
    tensors, _ = read_checkpoint(path)
    renamed = {}
    for key, tensor in tensors.items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{STEM.get(module, module)}.{leaf}" if module else key] = tensor
    return renamed
