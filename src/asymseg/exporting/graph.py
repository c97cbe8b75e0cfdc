"""What an exported file computes: the network, and around it what its user asked to have built in."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from asymseg.model.info import ModelInfo
from asymseg.model.signature import Signature


class Graph(nn.Module):
    """The network with its signature; images B C H W in, what `signature.output` says out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, info: ModelInfo, signature: Signature) -> None:
        super().__init__()
        self.network = network.half() if signature.half else network
        self.signature = signature
        self.reversed = info.channel_order == "BGR"
        self.register_buffer("mean", 255 * torch.tensor(info.mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(info.std).view(-1, 1, 1))

    def forward(self, image: Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]) -> Tensor:
        return self.answer(self.logits(image))

    def logits(self, image: Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n h w"]:
        """What the network says of the images."""
        x = image
        if self.signature.from_bytes:
            x = (x.flip(1) if self.reversed else x).float()
            x = (x - self.mean) / self.std
        logits: Tensor = self.network(x.half() if self.signature.half else x)
        return logits.float()

    def answer(self, logits: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n h w"] | UInt8[Tensor, "b h w"]:
        """The logits in the form that the signature says."""
        if self.signature.output == "probabilities":
            return logits.softmax(dim=1)
        if self.signature.output == "class_map":
            return logits.argmax(dim=1).to(torch.uint8)
        return logits
