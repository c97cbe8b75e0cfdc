"""The paper's equations in the plainest code, which the blocks must agree with (arXiv 1908.07678, sections 3.1 to 3.3).

Each function takes one of our blocks for its parameters and computes the map out and the weights B N S the long way:
adaptive pooling, values before pooling, a context map, a concatenation. In training mode BatchNorm uses the batch; its
running averages are left alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pyramid(x: Tensor, pool_sizes: tuple[int, ...]) -> Tensor:
    """P(X): B C H W -> B C S."""
    return torch.cat([F.adaptive_avg_pool2d(x, size).flatten(2) for size in pool_sizes], dim=2)


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    if norm.training:
        return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def projection(x: Tensor, layers: nn.Sequential) -> Tensor:
    """f_q, f_k: 1x1 convolution, BatchNorm, ReLU."""
    return F.relu(batch_norm(F.conv2d(x, layers[0].weight), layers[1]))


def attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """value softmax(key^T query / sqrt(K)) as a map, and the weights; query B K H W, key B K S, value B V S."""
    scores = torch.einsum("bkn,bks->bns", query.flatten(2), key) / query.shape[1] ** 0.5
    weights = torch.softmax(scores, dim=2)
    context = torch.einsum("bvs,bns->bvn", value, weights)
    return context.unflatten(2, query.shape[2:]), weights


def merge(context: Tensor, x: Tensor, block: nn.Module, *, relu: bool) -> Tensor:
    """The context map after f_o, joined with x as the block's `merge` says."""
    context = F.conv2d(context, block.output.weight, block.output.bias)
    if block.merge is None:
        return x + context if block.add else context
    out = batch_norm(F.conv2d(torch.cat([context, x], dim=1), block.merge[0].weight), block.merge[1])
    return F.relu(out) if relu else out


def apnb(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    query = projection(x, block.query)
    key = pyramid(projection(x, block.query), block.pool.pool_sizes)
    value = pyramid(F.conv2d(x, block.value.weight, block.value.bias), block.pool.pool_sizes)
    context, weights = attend(query, key, value)
    return merge(context, x, block, relu=True), weights


def afnb(block: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    query = projection(high, block.query)
    key = pyramid(projection(low, block.key), block.pool.pool_sizes)
    value = pyramid(F.conv2d(low, block.value.weight, block.value.bias), block.pool.pool_sizes)
    context, weights = attend(query, key, value)
    return merge(context, high, block, relu=False), weights


def non_local(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    query = projection(x, block.query)
    key = projection(x, block.query).flatten(2)
    value = F.conv2d(x, block.value.weight, block.value.bias).flatten(2)
    context, weights = attend(query, key, value)
    return merge(context, x, block, relu=True), weights
