"""Dilated depthwise convolution in training on a CPU: torch's own form against ours, forward and backward.

    python benchmarks/dilated.py

Both are timed in turn in one process, and the median ratio of the pairs is printed with the largest difference.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from asymseg.model.dilated import DilatedDepthwiseConv2d

BATCH, CHANNELS, SIDE = 8, 576, 40


def main() -> None:
    parser = argparse.ArgumentParser(description="Dilated depthwise convolution in training on a CPU.")
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(BATCH, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    print(f"{BATCH} x {CHANNELS} x {SIDE} x {SIDE}, 3x3, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for dilation in (2, 4):
        plain = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=dilation, dilation=dilation, groups=CHANNELS, bias=False)
        ).to(memory_format=torch.channels_last)
        ours = nn.Sequential(*plain)
        DilatedDepthwiseConv2d.replace_in(ours)
        ratios, difference = [], 0.0
        for _ in range(arguments.pairs + 1):  # the first warms up
            seconds_plain, gradient_plain = step(plain, images)
            seconds_ours, gradient_ours = step(ours, images)
            ratios.append(seconds_plain / seconds_ours)
            scale = float(gradient_plain.abs().max())
            difference = max(difference, float((gradient_plain - gradient_ours).abs().max()) / scale)
        ratio = statistics.median(ratios[1:])
        print(f"dilation {dilation}: {ratio:.1f} x faster; largest relative difference of gradients {difference:.0e}")


def step(module: nn.Module, images: Tensor) -> tuple[float, Tensor]:
    """Seconds of a forward and backward pass, and the gradient of the images."""
    images = images.detach().requires_grad_()
    started = time.perf_counter()
    module(images).square().sum().backward()
    seconds = time.perf_counter() - started
    assert images.grad is not None
    return seconds, images.grad


if __name__ == "__main__":
    main()
