"""What each process keeps of an ANNNet on ResNet-101, with and without `--train.shard true`.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/shares.py --out shares.json

Bytes of weights, gradients, momenta and the moving average after a step on an image of 64x64, in the process that keeps
most; and, of a network that is shared out, of the largest part of it that is gathered for its turn.
"""

import argparse
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule

from asymseg.config import make_config
from asymseg.training import plan
from asymseg.training.sharding import own_part, place


def main() -> None:
    parser = argparse.ArgumentParser(description="What each process keeps of a network.")
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--out", type=Path, help="also write the facts to this file")
    arguments = parser.parse_args()
    facts: dict[str, Any] = {
        "whole": keeps(arguments.backbone, shard=False),
        "shared out": keeps(arguments.backbone, shard=True),
        "processes": int(os.environ["WORLD_SIZE"]),
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "date": date.today().isoformat(),
    }
    if os.environ["RANK"] == "0":
        text = json.dumps(facts, indent=1)
        print(text)
        if arguments.out:
            arguments.out.write_text(text + "\n", encoding="utf-8")


def keeps(backbone: str, *, shard: bool) -> dict[str, int]:
    """Bytes by kind, the most that any process keeps."""
    config = make_config(
        {"model": {"backbone": backbone, "pretrained": False}, "train": {"ema": 0.9, "shard": shard, "batch_size": 2}}
    )
    accelerator = plan.make_accelerator(config.train)
    network = plan.make_network(config, 19)
    parts = [part for part in network.modules() if part is not network]
    placed = place(network, config.train, accelerator)
    logits, aux = placed.model(torch.rand(1, 3, 64, 64), with_aux=True)
    accelerator.backward(logits.square().mean() + aux.square().mean())
    placed.optimizer.step()
    assert placed.average is not None
    placed.average.update(network)
    momenta = [state["momentum_buffer"] for state in placed.optimizer.state.values()]
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    kept = {
        "weights": held(network.parameters()),
        "gradients": held(gradients),
        "momenta": held(momenta),
        "moving average": held(placed.average.module.parameters()),
        "gathered at once": max((own_weights(part) for part in parts if isinstance(part, FSDPModule)), default=0),
    }
    everywhere: list[dict[str, int]] = gather_object([kept])
    return {name: max(each[name] for each in everywhere) for name in kept}


def held(tensors: Any) -> int:
    """Bytes of their memory in this process, each piece once."""
    pieces = [own_part(tensor).untyped_storage() for tensor in tensors]
    return sum({piece.data_ptr(): piece.nbytes() for piece in pieces}.values())


def own_weights(part: torch.nn.Module) -> int:
    """Bytes of a part's weights, whole, without those of parts within it that are gathered by themselves."""
    inner = [child for child in part.modules() if child is not part and isinstance(child, FSDPModule)]
    apart = {id(parameter) for child in inner for parameter in child.parameters()}
    return sum(parameter.numel() * 4 for parameter in part.parameters() if id(parameter) not in apart)


if __name__ == "__main__":
    sys.exit(main())
