"""The head of a network in steps, for a part of an image, where the tokens of the whole image are given.

Each block needs of the whole image its tokens alone: pools of two maps, the first of which gives keys and the second
values (`to_pool` of a block). `asymseg.prediction.streaming` adds them up over tiles.
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor

from asymseg.blocks import AFNB, APNB
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.folded import FoldedANNNet, FoldedAttention, FoldedFusion

Network = ANNNet | FoldedANNNet
Block = AFNB | APNB | FoldedAttention | FoldedFusion
Pools = tuple[Float[Tensor, "b k s"], Float[Tensor, "b c s"]]
"""A block's tokens: its keys, and what its values are made of."""


def check_known(network: object) -> Network:
    """The network itself. Raises ConfigError for one that may compute something else than its parts say."""
    if type(network) not in (ANNNet, FoldedANNNet):
        raise ConfigError(
            f"{type(network).__name__} may compute something else than ANNNet, so what it takes from the whole image "
            "is not known; use an ANNNet itself"
        )
    return cast(Network, network)


def check_by_tokens(network: object) -> Network:
    """The network itself. Raises ConfigError for one whose context is not made of tokens, or not known."""
    network = check_known(network)
    if network.settings["context"] not in ("apnb", "none"):
        raise ConfigError(
            f"context {network.settings['context']!r} is not made of tokens: it needs all pixels of the image at once; "
            "predict the whole image, or windows of it"
        )
    return network


def fusion_block(network: Network) -> AFNB | FoldedAttention | FoldedFusion | None:
    """The block that fuses the two maps; in a folded network the 3x3 convolution may be part of it."""
    block = network.project if isinstance(network.project, FoldedFusion) else network.fusion
    return cast(AFNB | FoldedAttention | FoldedFusion | None, block)


def context_block(network: Network) -> APNB | FoldedAttention | None:
    """The block that looks at the tokens of its own map."""
    return cast(APNB | FoldedAttention | None, network.context)


def features(
    network: Network, high: Float[Tensor, "b g h w"], fusion: Pools | None
) -> tuple[Float[Tensor, "b g h w"], Float[Tensor, "b x h w"]]:
    """The fused map and, behind the 3x3 convolution, the map that context is added to."""
    block = fusion_block(network)
    if block is None or fusion is None:
        return high, network.project(high)
    x = block.from_tokens(high, *fusion)
    return (high, x) if isinstance(block, FoldedFusion) else (x, network.project(x))


def scores(
    network: Network, fused: Float[Tensor, "b g h w"], x: Float[Tensor, "b x h w"], context: Pools | None
) -> Float[Tensor, "b n h w"]:
    """Coarse logits from what `features` gave."""
    block = context_block(network)
    if block is not None and context is not None:
        x = block.from_tokens(x, *context)
    if network.refine is not None:
        x = network.refine(fused, x)
    return cast(Tensor, network.classifier(x))


def blurred_cells(network: Network) -> int:
    """How many cells at the border of a part the head makes differ from those of the whole, upsampling included."""
    return 3 if network.refine is None else 5  # a 3x3 convolution, two neighbours in upsampling; two convolutions more
