"""BatchNorm over several processes is torch's own over all images in one: results, gradients and running statistics."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from timm.layers import BatchNormAct2d
from torch import nn

from asymseg.model.synchronised import synchronise_batchnorm

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, so that torch is not loaded once more"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

NORMS = {
    "plain": lambda: nn.BatchNorm2d(5),
    "timm": lambda: BatchNormAct2d(5),
    "average": lambda: nn.BatchNorm2d(5, momentum=None),
    "no scale": lambda: nn.BatchNorm2d(5, affine=False),
    "no statistics": lambda: nn.BatchNorm2d(5, track_running_stats=False),
}


def test_every_process_gets_its_share_of_the_whole(tmp_path):
    torch.multiprocessing.start_processes(compare, (tmp_path / "meeting", (1, 4, 2)), nprocs=3, start_method="fork")


def compare(rank: int, meeting: Path, shares: tuple[int, ...]) -> None:
    store = dist.FileStore(str(meeting), len(shares))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(shares))
    mine = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
    for name, make in NORMS.items():
        torch.manual_seed(0)
        plain = make().double()
        for parameter in plain.parameters():
            nn.init.normal_(parameter)
        ours = copy.deepcopy(plain)
        synchronise_batchnorm(ours)
        ours = copy.deepcopy(ours)  # as the moving average of the weights has it
        for _ in range(2):
            # Means far from zero, where a difference of squares would lose most digits.
            x = torch.randn(sum(shares), 5, 3, 4, dtype=torch.float64) + 1e4 * torch.arange(5)[:, None, None]
            whole, share = x.clone().requires_grad_(), x[mine].clone().requires_grad_()
            direction = torch.randn_like(x)
            expected, found = plain(whole), ours(share)
            expected.backward(direction)
            found.backward(direction[mine])
            close(found, expected[mine], name)
            close(share.grad, whole.grad[mine], name)
        for parameter, reference in zip(ours.parameters(), plain.parameters(), strict=True):
            dist.all_reduce(parameter.grad)
            close(parameter.grad, reference.grad, name)
        for buffer, reference in zip(ours.buffers(), plain.buffers(), strict=True):
            close(buffer, reference, name)
        close(ours.eval()(x[mine]), plain.eval()(x[mine]), name)
    dist.destroy_process_group()


def close(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=lambda message: f"{name}: {message}")
