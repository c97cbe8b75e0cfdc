"""A network whose weights, gradients and momenta are shared out: each process keeps a part, and borrows the others'.

Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020, arXiv 1910.02054,
section 5; by torch's `fully_shard`. What is here is called by all processes at once, or it waits for those that do not.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from timm.models import FeatureListNet
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from asymseg.config import Config, TrainConfig
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.recomputing import blocks_in_row, is_block
from asymseg.training.optimizer import make_optimizer
from asymseg.training.run import Run


def shares_out(settings: TrainConfig, accelerator: Accelerator) -> bool:
    """Whether processes keep a part of the network each; one alone keeps it whole."""
    return settings.shard and accelerator.num_processes > 1


def place(network: ANNNet, config: Config, accelerator: Accelerator) -> Run:
    """A run that begins, with `network`, in place, where its steps are computed: a copy on each process, or a share.

    Raises ConfigError for a backbone that cannot be shared out.
    """
    settings = config.train
    if not shares_out(settings, accelerator):
        model, optimizer = accelerator.prepare(network, make_optimizer(network, settings))
        average = ModelEmaV3(network, decay=settings.ema) if settings.ema else None
        return Run(network, model, optimizer, average, accelerator)
    if any(parameter.dim() == 0 for parameter in network.parameters()):
        raise ConfigError(
            f"model.backbone = {config.model.backbone!r} has weights that are single numbers, which torch cannot share "
            "out; leave train.shard out, or choose another"
        )
    outline = copy.deepcopy(network).to("meta")
    network.to(accelerator.device)
    for tensor in network.state_dict().values():
        broadcast(tensor)
    # torch has no way to move lists of shares and plain tensors at once, nor to copy what is shared out.
    average = ModelEmaV3(network, decay=settings.ema, foreach=False) if settings.ema else None
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for each in (network, *([] if average is None else [average.module])):
        _share_out(each, mesh)
    model = accelerator.prepare_model(network, device_placement=False, evaluation_mode=True)  # or it makes copies of it
    optimizer = accelerator.prepare_optimizer(make_optimizer(network, settings))
    return Run(network, model, optimizer, average, accelerator, outline=outline)


def whole_network(network: ANNNet, outline: ANNNet | None) -> ANNNet:
    """`network` itself where this process has all of it; otherwise a plain one that it can use by itself."""
    if outline is None:
        return network
    shares = dict([*network.named_parameters(), *network.named_buffers()])
    plain = copy.deepcopy(outline).to_empty(device=next(iter(shares.values())).device)
    with torch.no_grad():
        for name, tensor in [*plain.named_parameters(), *plain.named_buffers()]:
            share = shares[name]
            tensor.copy_(share.full_tensor() if isinstance(share, DTensor) else share)
    return plain


def with_weights(network: ANNNet, outline: ANNNet | None, whole: dict[str, Tensor]) -> ANNNet:
    """`network` itself where this process has all of it; otherwise its outline with what was gathered of it."""
    if outline is None:
        return network
    plain = copy.deepcopy(outline)
    plain.load_state_dict(whole, assign=True)
    return plain


def whole_state(state: Any, kept: bool) -> Any:
    """A dictionary of states with all tensors whole, as a run without shares has them.

    Where it is not `kept`, what is gathered from other processes is given up at once.
    """
    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole.cpu() if kept else whole.new_empty(0)
    if isinstance(state, dict):
        return {key: whole_state(value, kept) for key, value in state.items()}
    return state


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def kept_like(whole: Tensor, like: Tensor) -> Tensor:
    """A copy of `whole` as `like` is kept: where it is, in its order in memory, and of what is shared out the share.

    Raises RuntimeError where their shapes differ.
    """
    if whole.shape != like.shape:
        raise RuntimeError(f"a tensor of {tuple(whole.shape)} for one of {tuple(like.shape)}")
    if isinstance(like, DTensor):
        whole = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return torch.empty_like(like).copy_(whole)


def load_network(network: nn.Module, whole: dict[str, Tensor]) -> None:
    """Take over a state, of which each process is given the whole. Raises RuntimeError where it does not fit."""
    own = network.state_dict()
    shared = {name for name, tensor in own.items() if isinstance(tensor, DTensor)}
    network.load_state_dict(
        {name: kept_like(value, own[name]) if name in shared else value for name, value in whole.items()}
    )


def _share_out(network: ANNNet, mesh: DeviceMesh) -> None:
    """Leave in `network`, in place, this process's part of every weight; buffers stay whole.

    Weights are gathered for one part of the network at a time, and given up after it.
    """
    network.to(memory_format=torch.contiguous_format)  # the only order that can be cut
    heads = [child for child in network.children() if any(True for _ in child.parameters())]
    for part in (*_blocks(network.backbone), *heads, network):
        # Sums, which are then divided: between CPUs, torch 2.8 takes a mean for a sum, without a word.
        fully_shard(part, mesh=mesh).set_force_sum_reduction_for_comms(True)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a backbone: those that stand in a row or in a list, and after its blocks a stage of timm's lists.

    Only what is called as a module can gather its weights, which a list is not.
    """
    for child in module.children():
        if row := blocks_in_row(child):
            yield from row
        else:
            yield from _blocks(child)
            listed = isinstance(module, FeatureListNet | nn.ModuleList) and not isinstance(child, nn.ModuleList)
            yield from [child] if listed and is_block(child) else []
