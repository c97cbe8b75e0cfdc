"""What a file does to real images: the inputs that an exported network meets, and the mean IoU that it reaches."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.data.dataset import DataSet, Pair
from asymseg.data.reading import read_pair_image
from asymseg.evaluation.evaluate import evaluate
from asymseg.model.info import ModelInfo
from asymseg.prediction.onnx.on_torch import as_bytes
from asymseg.prediction.predict import Predictor


def inputs(pairs: Sequence[Pair], info: ModelInfo, from_bytes: bool) -> Iterator[np.ndarray]:
    """What a file is given to predict these images, seen as the model sees them."""
    recorder = _Recorder(info, from_bytes)
    predictor = Predictor(recorder, info, "cpu", fold=False)
    for pair in pairs:
        predictor.class_map(read_pair_image(pair, len(info.mean)))
        yield from recorder.seen
        recorder.seen.clear()


def score(predictor: Predictor, dataset: DataSet, split: str, progress: Callable[[int, int], None]) -> float:
    """The mean IoU on a split, seen as the model sees images."""
    result = evaluate(
        predictor, dataset, split, boundary=False, calibration=False, replicates=0, workers=1, progress=progress
    )
    return result.scores.miou


class _Recorder(nn.Module):
    """Keeps what a file in its place would be given."""

    def __init__(self, info: ModelInfo, from_bytes: bool) -> None:
        super().__init__()
        self.info, self.from_bytes = info, from_bytes
        self.seen: list[np.ndarray] = []

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n 1 1"]:
        x = images.contiguous().numpy()
        self.seen.append(as_bytes(x, self.info, "the file to be written") if self.from_bytes else x)
        return torch.zeros(len(images), len(self.info.classes), 1, 1)
