"""Losses. One rule for ignored pixels everywhere: they are in neither the sum nor the count, and no pixel gives 0."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from asymseg.classes import IGNORE
from asymseg.config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    logits: Float[Tensor, "b n h w"], labels: Int64[Tensor, "b h w"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy averaged over labelled pixels, by class weights where given; 0 where no pixel is labelled."""
    losses = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="none")  # b h w
    return losses.sum() / _pixel_weights(labels, weights).sum().clamp(min=torch.finfo(torch.float32).tiny)


def ohem_cross_entropy(
    logits: Float[Tensor, "b n h w"],
    labels: Int64[Tensor, "b h w"],
    weights: Float[Tensor, " n"] | None = None,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    min_share: float | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy over the hard pixels alone (online hard example mining), the ANN authors' form.

    Kept are labelled pixels whose true class has a probability below max(`threshold`, the probability of rank
    `min_kept`), strictly. The losses are class-weighted but, as in the authors' code, divided by the number of kept
    pixels and not by their weights.

    Args:
        threshold: Probability of the true class from which on a pixel counts as easy.
        min_kept: Pixels kept at least; all of them where fewer are labelled.
        min_share: The same as a share of the labelled pixels; replaces `min_kept`.
    """
    losses = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="none").flatten()
    labels = labels.flatten()
    valid = labels != IGNORE
    with torch.no_grad():
        plain = F.cross_entropy(
            logits.float(), labels.view(logits.shape[0], *logits.shape[2:]), ignore_index=IGNORE, reduction="none"
        )
        probability = torch.exp(-plain.flatten()).masked_fill(~valid, 2.0)  # never below a threshold
        count = int(valid.sum())
        kept_at_least = min_kept if min_share is None else max(1, round(min_share * count))
        if kept_at_least >= count:
            kept = valid
        else:
            # Strictly below, as the authors have it: the pixel of this rank itself is kept only below the threshold.
            rank = probability.kthvalue(kept_at_least + 1).values
            kept = probability < rank.clamp(min=threshold)
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def make_loss(settings: TrainConfig, weights: Float[Tensor, " n"] | None) -> tuple[Loss, Loss]:
    """The main loss and the auxiliary classifier's, which is plain cross-entropy as in the authors' code."""

    def plain(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, weights)

    def ohem(logits: Tensor, labels: Tensor) -> Tensor:
        return ohem_cross_entropy(
            logits,
            labels,
            weights,
            threshold=settings.ohem_threshold,
            min_kept=settings.ohem_min_kept,
            min_share=settings.ohem_min_share,
        )

    return (ohem if settings.loss == "ohem" else plain), plain


def _pixel_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """1, or the weight of its class, for each labelled pixel; 0 for the others."""
    valid = labels != IGNORE
    if weights is None:
        return valid.float()
    return weights[labels.where(valid, 0)] * valid
