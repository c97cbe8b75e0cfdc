"""What a network's blocks need of one whole image: little, whatever its size, and so kept in a file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asymseg.atomic import atomic_file
from asymseg.errors import DataError


@dataclass(frozen=True)
class Tokens:
    """What the blocks need of one whole image; None where a network lacks a block. Float64, on the CPU."""

    size: tuple[int, int]
    """Height and width of the image."""
    fusion: tuple[Float[Tensor, "1 k s"], Float[Tensor, "1 c s"]] | None = None
    context: tuple[Float[Tensor, "1 q t"], Float[Tensor, "1 d t"]] | None = None

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        tensors = {"size": torch.tensor(self.size)}
        for name, pools in (("fusion", self.fusion), ("context", self.context)):
            if pools is not None:
                tensors |= {f"{name}.key": pools[0].contiguous(), f"{name}.pooled": pools[1].contiguous()}
        with atomic_file(path) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """What `save` wrote. Raises DataError."""
        try:
            tensors = load_file(path)
            height, width = tensors["size"].tolist()
            pools = [
                (tensors[f"{name}.key"], tensors[f"{name}.pooled"]) if f"{name}.key" in tensors else None
                for name in ("fusion", "context")
            ]
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: no tokens of an image ({reason}); remove it, to gather them again") from None
        return cls((height, width), *pools)
