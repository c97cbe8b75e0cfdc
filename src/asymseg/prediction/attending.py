"""The weights by which a network looked at an image, from one more run of it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.blocks import AFNB, APNB
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet, pad_for
from asymseg.model.by_tokens import check_known, features, fusion_block
from asymseg.model.folded import FoldedANNNet, FoldedAttention, FoldedFusion
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.attention import Attending, BlockWeights, Name
from asymseg.prediction.execution import Coarse, normalised, scaled


def attends(network: nn.Module, seeing: Seeing) -> bool:
    """Whether `attend` can tell anything of such a network, and of images no larger than a window."""
    if len(seeing.scales) > 1 or seeing.flip or not isinstance(network, ANNNet | FoldedANNNet):
        return False
    return fusion_block(network) is not None or isinstance(network.context, APNB | FoldedAttention)


@torch.inference_mode()
def attend(coarse: Coarse, info: ModelInfo, image: Tensor) -> Attending:
    """The weights by which a network looked at an image, from one more run of it without the classifier.

    Raises ConfigError for a predictor that sees the image in parts or several times, where no weights are those of its
    answer, and for a network without a block that looks at regions.
    """
    network = check_known(coarse.network)
    first, *others = info.seeing.forms((image.shape[1], image.shape[2]))
    if others or not first.whole:
        raise ConfigError(
            "attention is that of one look at the whole image, and this predictor sees it in parts or several times; "
            'use predictor.seeing(mode="whole", scales=(1.0,), flip=False)'
        )
    fusion, context = fusion_block(network), network.context
    blocks = []
    with coarse.running():
        padded = pad_for(network.backbone, scaled(normalised(image, info, coarse.device), first.seen))
        low, high = network.backbone(padded.contiguous(memory_format=torch.channels_last))
        pools = None
        if fusion is not None:
            key, pooled = (fusion.pool(x) for x in fusion.to_pool(low))
            pools = (key, pooled)
            blocks.append(_weights("fusion", fusion, high, key, (low.shape[2], low.shape[3])))
        if isinstance(context, APNB | FoldedAttention):
            x = features(network, high, pools)[1]
            key = context.pool(context.to_pool(x)[0])
            blocks.append(_weights("context", context, x, key, (x.shape[2], x.shape[3])))
    if not blocks:
        raise ConfigError(
            "the network has no block that looks at regions (fusion 'none', context "
            f"{network.settings['context']!r}), so there is no attention to show"
        )
    covers = (padded.shape[2], padded.shape[3])
    return Attending(image.numpy(), first.seen, covers, network.align_corners, tuple(blocks))


def _weights(
    name: Name,
    block: AFNB | APNB | FoldedAttention | FoldedFusion,
    x: Float[Tensor, "1 c h w"],
    key: Float[Tensor, "1 k s"],
    pooled: tuple[int, int],
) -> BlockWeights:
    weights = block.attention(x, key)[0].float().cpu().reshape(x.shape[2], x.shape[3], -1)
    return BlockWeights(name, block.pool.pool_sizes, weights.numpy(), pooled, tuple(block.pool.cells(pooled)))
