"""Networks as `asymseg.model.folding` makes them, for evaluation alone."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.blocks import PyramidPooling
from asymseg.blocks.attention import attention_weights, on_tokens, pointwise
from asymseg.model.annnet import pad_for, upsample
from asymseg.model.memory import reused_memory


class FoldedANNNet(nn.Module):
    """What `fold` makes: a network for evaluation alone, without auxiliary classifier and dropout."""

    def __init__(
        self,
        settings: dict[str, Any],
        backbone: nn.Module,
        fusion: nn.Module | None,
        pyramid: nn.Module | None,
        project: nn.Module,
        context: nn.Module | None,
        refine: nn.Module | None,
        classifier: nn.Module,
    ) -> None:
        super().__init__()
        self.settings = settings | {"folded": True}
        self.num_classes: int = settings["num_classes"]
        self.align_corners: bool = settings["align_corners"]
        self.backbone = backbone
        self.fusion = fusion
        self.pyramid = pyramid
        self.project = project
        self.context = context
        self.refine = refine
        self.classifier = classifier

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n h w"]:
        """Logits at the size of the images."""
        with reused_memory(images.device):
            padded = pad_for(self.backbone, images)
            return upsample(self.head(*self.backbone(padded)), padded, images, self.align_corners)

    def head(self, low: Float[Tensor, "b l hl wl"], high: Float[Tensor, "b g hg wg"]) -> Float[Tensor, "b n hg wg"]:
        """Logits at the size of `high`, from the two maps of the backbone."""
        if isinstance(self.project, FoldedFusion):
            x = self.project(low, high)
        else:
            high = high if self.fusion is None else self.fusion(low, high)
            x = self.project(high if self.pyramid is None else self.pyramid(high))
        if isinstance(self.context, FoldedAttention):
            x = self.context(x, x)
        elif self.context is not None:
            x = self.context(x)
        if self.refine is not None:
            x = self.refine(high, x)
        return self.classifier(x)  # type: ignore[no-any-return]


class FoldedAttention(nn.Module):
    """AFNB or APNB with its linear maps multiplied out; `key` is None where queries and keys are the same maps."""

    def __init__(
        self,
        pool: PyramidPooling,
        query: nn.Module,
        key: nn.Module | None,
        tokens: nn.Conv2d,
        merge: nn.Conv2d | None,
        *,
        add: bool,
        relu: bool,
    ) -> None:
        super().__init__()
        self.pool, self.query, self.key, self.tokens, self.merge = pool, query, key, tokens, merge
        self.add, self.relu = add, relu

    def forward(self, low: Float[Tensor, "b l hl wl"], high: Float[Tensor, "b g h w"]) -> Float[Tensor, "b o h w"]:
        """relu(merge x + tokens weights^T), or without what this block lacks."""
        query = self.query(high)  # B K H W
        weights = attention_weights(query, self.pool(query if self.key is None else self.key(low)))  # B N S
        del query
        return self._joined(high, weights, self.pool(low))

    def to_pool(self, low: Float[Tensor, "b l h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b l h w"]]:
        """As the plain blocks have it."""
        return (self.query if self.key is None else self.key)(low), low

    def from_tokens(
        self, high: Float[Tensor, "b g h w"], key: Float[Tensor, "b k s"], pooled: Float[Tensor, "b l s"]
    ) -> Float[Tensor, "b o h w"]:
        """As the plain blocks have it."""
        return self._joined(high, self.attention(high, key), pooled)

    def attention(self, high: Float[Tensor, "b g h w"], key: Float[Tensor, "b k s"]) -> Float[Tensor, "b h*w s"]:
        """How much each pixel takes from each token."""
        return attention_weights(self.query(high), key)

    def _joined(
        self, high: Float[Tensor, "b g h w"], weights: Float[Tensor, "b h*w s"], pooled: Float[Tensor, "b l s"]
    ) -> Float[Tensor, "b o h w"]:
        tokens = on_tokens(self.tokens, pooled)  # B O S
        spread = weights.to(tokens.dtype).transpose(1, 2)  # B S N
        if self.merge is not None:
            x = pointwise(high, self.merge.weight)
            out = x.flatten(2).baddbmm_(tokens, spread).reshape(x.shape)
        else:
            out = torch.baddbmm(high.flatten(2), tokens, spread) if self.add else torch.bmm(tokens, spread)
            out = out.reshape(-1, tokens.shape[1], *high.shape[2:])
        return out.relu_() if self.relu else out


class FoldedFusion(nn.Module):
    """AFNB and the 3x3 convolution, BatchNorm and ReLU behind it, as one map of `low` and `high`."""

    def __init__(
        self,
        pool: PyramidPooling,
        query: nn.Module,
        key: nn.Module,
        value: nn.Conv2d,
        spread: nn.Conv2d,
        project: nn.Conv2d | None,
    ) -> None:
        super().__init__()
        self.pool, self.query, self.key, self.value = pool, query, key, value
        self.spread, self.project = spread, project

    def forward(self, low: Float[Tensor, "b l hl wl"], high: Float[Tensor, "b g h w"]) -> Float[Tensor, "b o h w"]:
        key, pooled = (self.pool(x) for x in self.to_pool(low))
        return self.from_tokens(high, key, pooled)

    def to_pool(self, low: Float[Tensor, "b l h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b l h w"]]:
        """As the plain blocks have it."""
        return self.key(low), low

    def attention(self, high: Float[Tensor, "b g h w"], key: Float[Tensor, "b k s"]) -> Float[Tensor, "b h*w s"]:
        """How much each pixel takes from each token."""
        return attention_weights(self.query(high), key)

    def from_tokens(
        self, high: Float[Tensor, "b g h w"], key: Float[Tensor, "b k s"], pooled: Float[Tensor, "b l s"]
    ) -> Float[Tensor, "b o h w"]:
        """As the plain blocks have it; of a part of the map, the pixels at its border see zeros beyond it."""
        weights = self.attention(high, key)  # B N S
        values = on_tokens(self.value, pooled)  # B V S
        values = F.pad(values, (0, 0, 0, 1), value=1.0)  # a row of ones carries what is constant within the image
        context = torch.bmm(values, weights.to(values.dtype).transpose(1, 2))  # B V+1 N
        context = context.reshape(*context.shape[:2], *high.shape[2:])
        out: Tensor = self.spread(context)
        if self.project is not None:
            out += self.project(high)
        return out.relu_()
