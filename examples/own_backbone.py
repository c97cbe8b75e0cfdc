"""A backbone of one's own under ANNNet: trained on a few scenes, saved as a model folder and loaded again.

    python examples/own_backbone.py --out demo

A backbone is any module that returns two feature maps, low and high, and says their widths in `channels`. The model
folder holds weights and classes but no code, so whoever loads it brings the module.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import asymseg
from asymseg.data.sample import SAMPLE_CLASSES, make_scene
from asymseg.model.checkpoint import load_model, save_model
from asymseg.model.info import ModelInfo


class Backbone(nn.Module):
    """Two maps at stride 4; they could as well differ in size."""

    channels = (16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.high = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = self.low(images)
        return low, self.high(low)


def main() -> None:
    parser = argparse.ArgumentParser(description="ANNNet over a backbone of one's own.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the model")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    widths = {"key_channels": 16, "value_channels": 16, "context_channels": 32, "aux_channels": 16}
    network = asymseg.ANNNet(num_classes=len(SAMPLE_CLASSES), backbone=Backbone(), **widths)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
    for step in range(arguments.steps):
        image, mask = make_scene(step)
        images = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        labels = torch.from_numpy(mask)[None].long()
        logits, aux = network(images, with_aux=True)
        loss = F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(aux, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss after {arguments.steps} steps: {loss.item():.3f}")

    info = ModelInfo(SAMPLE_CLASSES, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    folder = arguments.out / "own-backbone"
    save_model(folder, network, info)
    again, info = load_model(folder, Backbone())
    result = asymseg.Predictor(again, info)(make_scene(1_000_000)[0])
    result.save(arguments.out / "own-backbone.png")
    print(f"saved to {folder}, loaded again; its answer is {arguments.out / 'own-backbone.png'}")


if __name__ == "__main__":
    main()
