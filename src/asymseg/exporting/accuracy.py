"""What a file does to real images: the inputs that an exported network meets, and the mean IoU that it reaches."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.data.dataset import DataSet, Pair
from asymseg.data.reading import read_pair_image
from asymseg.evaluation.evaluate import evaluate
from asymseg.exporting.verification import Run
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor


def inputs(pairs: Sequence[Pair], info: ModelInfo, from_bytes: bool) -> Iterator[np.ndarray]:
    """What a file is given to predict these images, seen as the model sees them."""
    seen: list[np.ndarray] = []

    def record(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return np.zeros((len(image), len(info.classes), 1, 1), np.float32)

    predictor = outside(record, info, from_bytes)
    for pair in pairs:
        predictor.class_map(read_pair_image(pair, len(info.mean)))
        yield from seen
        seen.clear()


def outside(run: Run, info: ModelInfo, from_bytes: bool) -> Predictor:
    """A predictor whose network is a loaded file, which gives logits."""
    return Predictor(_Outside(run, info, from_bytes), info, "cpu")


def score(predictor: Predictor, dataset: DataSet, split: str, progress: Callable[[int, int], None]) -> float:
    """The mean IoU on a split, seen as the model sees images."""
    result = evaluate(
        predictor, dataset, split, boundary=False, calibration=False, replicates=0, workers=1, progress=progress
    )
    return result.scores.miou


class _Outside(nn.Module):
    """A loaded file in the place of a network: normalised images in, logits out."""

    def __init__(self, run: Run, info: ModelInfo, from_bytes: bool) -> None:
        super().__init__()
        self.run, self.info, self.from_bytes = run, info, from_bytes

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n i j"]:
        if self.from_bytes:
            mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (self.info.mean, self.info.std))
            images = (255 * (images * std + mean)).round().clamp(0, 255).byte()
            images = images.flip(1) if self.info.channel_order == "BGR" else images
        return torch.from_numpy(self.run(images.contiguous().numpy()))
