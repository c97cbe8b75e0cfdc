"""APNB in a network of one's own: it needs torch and nothing else of asymseg, and takes any size.

    python examples/own_network.py --steps 60

A small convolutional network, that is not asymseg's, learns to name the discs of the built-in scenes, once without and
once with one block in its middle. The discs look alike; only a far beacon tells their class. It prints the share of the
discs' pixels that each gets right on scenes it has not seen.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from asymseg.blocks import APNB
from asymseg.data.sample import make_scene


def small_network(context: nn.Module) -> nn.Sequential:
    """A few convolutions; `context` takes 32 channels and gives 32."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=2, padding=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        context,
        nn.Conv2d(32, 5, 1),
        nn.Upsample(scale_factor=4, mode="bilinear"),
    )


def scenes(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images B 3 H W from 0 to 1, and their class ids B H W."""
    pairs = [make_scene(number) for number in range(first, first + count)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in pairs]) / 255
    return images, torch.stack([torch.from_numpy(mask) for _, mask in pairs]).long()


def learn(network: nn.Module, steps: int, batch: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
    weights = torch.tensor([0.1, 1.0, 1.0, 1.0, 1.0])  # most pixels are ground
    network.train()
    for step in range(steps):
        images, labels = scenes(step * batch, batch)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels, weights).backward()
        optimizer.step()


@torch.no_grad()
def disc_accuracy(network: nn.Module, count: int = 16) -> float:
    """The share of the discs' pixels that get their class, on scenes that were not trained on."""
    images, labels = scenes(1_000_000, count)
    discs = labels >= 2
    return float((network.eval()(images).argmax(dim=1) == labels)[discs].double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="A network of one's own, without and with APNB.")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each network")
    parser.add_argument("--batch", type=int, default=8, help="scenes to a step")
    arguments = parser.parse_args()
    for title, context in (("without", nn.Identity()), ("with APNB", APNB(32, key_channels=16, value_channels=16))):
        torch.manual_seed(0)
        network = small_network(context)
        learn(network, arguments.steps, arguments.batch)
        print(f"{title}: {disc_accuracy(network):.3f} of the discs' pixels are right")


if __name__ == "__main__":
    main()
