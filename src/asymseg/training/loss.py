"""Losses. One rule for ignored pixels everywhere: they are in neither the sum nor the count, and no pixel gives 0.

A step's loss is a mean over the pixels of all its images, wherever they are: on several processes, or in parts that
come one after another. A mean of means would let a pixel count more where its neighbours are ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from asymseg.classes import IGNORE
from asymseg.config import TrainConfig

TINY = torch.finfo(torch.float32).tiny
"""The least that a sum is divided by, so that no pixel gives 0."""


@dataclass(frozen=True)
class Loss:
    """A mean over pixels, taken apart, so that it can be put together over several batches."""

    sums: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Logits and labels -> the sum of the pixels' losses, and what it is to be divided by."""
    divisor: Callable[[Tensor], Tensor] | None
    """Labels -> the second of these; None where it takes the logits to know it."""

    def __call__(self, logits: Float[Tensor, "b n h w"], labels: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """The mean over one batch alone."""
        total, divisor = self.sums(logits, labels)
        return total / divisor.clamp(min=TINY)


def cross_entropy(
    logits: Float[Tensor, "b n h w"], labels: Int64[Tensor, "b h w"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy averaged over labelled pixels, by class weights where given; 0 where no pixel is labelled."""
    total, divisor = _cross_entropy_sums(logits, labels, weights)
    return total / divisor.clamp(min=TINY)


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
    total, divisor = _ohem_sums(logits, labels, weights, threshold, min_kept, min_share)
    return total / divisor.clamp(min=TINY)


def make_loss(settings: TrainConfig, weights: Float[Tensor, " n"] | None) -> tuple[Loss, Loss]:
    """The main loss and the auxiliary classifier's, which is plain cross-entropy as in the authors' code."""

    def plain(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _cross_entropy_sums(logits, labels, weights)

    def ohem(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _ohem_sums(
            logits, labels, weights, settings.ohem_threshold, settings.ohem_min_kept, settings.ohem_min_share
        )

    auxiliary = Loss(plain, lambda labels: _pixel_weights(labels, weights).sum())
    return (Loss(ohem, None) if settings.loss == "ohem" else auxiliary), auxiliary


def _cross_entropy_sums(logits: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    losses = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="none")  # b h w
    return losses.sum(), _pixel_weights(labels, weights).sum()


def _ohem_sums(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    threshold: float,
    min_kept: int,
    min_share: float | None,
) -> tuple[Tensor, Tensor]:
    """The losses of the hard pixels, added up, and their count."""
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
    return (losses * kept).sum(), kept.sum()


def _pixel_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """1, or the weight of its class, for each labelled pixel; 0 for the others."""
    valid = labels != IGNORE
    if weights is None:
        return valid.float()
    return weights.to(labels.device)[labels.where(valid, 0)] * valid
