"""BatchNorm whose statistics are those of all processes, on any device: torch's own knows accelerators alone."""

from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F


def synchronise_batchnorm(network: nn.Module) -> None:
    """Make every BatchNorm of a network, in place, see the images of all processes in training.

    They stay of their class, so that in evaluation all is as it was. A subclass, of which it is not known what it does
    besides, is left as it is.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(norm: nn.BatchNorm2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """What a BatchNorm makes of its share of the images; in training its running statistics move."""
    if not norm.training:
        return type(norm).forward(norm, x)
    y, mean, variance, count = cast(tuple[Tensor, ...], _Normalise.apply(x, norm.weight, norm.bias, norm.eps))
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
    return cast(Tensor, norm.act(norm.drop(y))) if isinstance(norm, BatchNormAct2d) else y


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy's transform (arXiv 1502.03167, algorithm 1 and section 3) over the images of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        own_variance, own_mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        own = torch.cat([own_mean, own_variance, own_mean.new_tensor([x.numel() / x.shape[1]])])
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, own)
        table = torch.stack(gathered)  # processes 2c+1
        means, variances, counts = table[:, : x.shape[1]], table[:, x.shape[1] : -1], table[:, -1:]
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        y = F.batch_norm(wide, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        wide = gradients[0].to(mean.dtype)
        whitened = (x.to(mean.dtype) - mean[:, None, None]) * scale[:, None, None]
        own = torch.stack([wide.sum(dim=(0, 2, 3)), (wide * whitened).sum(dim=(0, 2, 3))])
        whole = own.clone()
        dist.all_reduce(whole)
        bias_part, weight_part = (whole / count)[:, :, None, None]
        factor = scale if weight is None else scale * weight
        x_gradient = (wide - bias_part - whitened * weight_part) * factor[:, None, None]
        by_bias, by_weight = (None, None) if weight is None else own  # DDP sums these over the processes
        return x_gradient.to(x.dtype), by_weight, by_bias, None
