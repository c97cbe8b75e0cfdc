"""OnnxPredictor: an exported file in place of a network, on onnxruntime and NumPy. Needs no torch."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from asymseg.data.pixels import Pixels, open_pixels
from asymseg.errors import CheckpointError, ConfigError, DataError
from asymseg.model.info import ModelInfo, read_description
from asymseg.model.seeing import Form
from asymseg.model.signature import INPUT, KEY, Signature
from asymseg.prediction.device import Device
from asymseg.prediction.onnx.maps import best_classes, rescaled, resized, softmax
from asymseg.prediction.onnx.session import open_session
from asymseg.prediction.result import AnyPredictor, Result
from asymseg.prediction.shortage import ran_out
from asymseg.prediction.windows import make_axis

if TYPE_CHECKING:
    import torch

_LEAST = np.finfo(np.float32).tiny
_PIXELS_TOGETHER = {"cpu": 2**18, "cuda": 2**22}
"""Of images that go through a file together; one always does."""


class OnnxPredictor(AnyPredictor):
    """What `asymseg.load("model.onnx")` gives: the surface of `Predictor`, with arrays where that has tensors.

    It says what the network would that the file was made of: its logits to 1e-4 of the largest, and so the same classes
    but where two are as good. A file that gives class maps, takes bytes or takes one size alone can do less, and says
    in one line what it is asked in vain; for one that takes bytes, an image at another scale is rounded to them. Of an
    image the scores of all classes are held at its full size; what is too large for that is for the model's folder.

    Args:
        path: A file that `asymseg export` wrote.
        device: cpu, cuda, or auto, which is CUDA where this onnxruntime has it.

    Raises:
        CheckpointError: A file that is damaged, or of another origin.
        ConfigError: A device that is not there.
        ExportError: onnxruntime is missing.
    """

    def __init__(self, path: str | Path, device: Device = "auto") -> None:
        self.path = Path(path)
        self.session = open_session(self.path, device)
        self.device = "cuda" if self.session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        text = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise CheckpointError(
                f"{path}: an ONNX file that asymseg did not write, so what its classes and preprocessing are is not "
                "known; write it by asymseg export"
            )
        content = read_description(text, str(path))
        self.info = ModelInfo.from_description(content, str(path))
        self.signature = Signature.from_description(content, str(path))
        self.settings: dict[str, Any] = content["network"]
        self.parameters = int(content.get("parameters", 0))
        """Of the network; 0 where the file does not say."""

    def __call__(self, source: "str | Path | Image.Image | np.ndarray | torch.Tensor", *, keep: bool = True) -> Result:
        """Predict a path, a PIL image, an array H W 3, or a tensor C H W, of bytes or floats 0..1.

        With `keep` the scores of all classes are held, so that the probabilities can be had later; without, the image
        is seen again should they be asked for. Raises DataError, and ConfigError for what the file cannot give.
        """
        return self._results([open_pixels(source, len(self.info.mean))], keep)[0]

    def several(self, images: "Sequence[str | Path | Image.Image | np.ndarray | torch.Tensor]") -> list[Result]:
        """What calling the predictor gives for each; images of one size go through the file together."""
        opened = [open_pixels(source, len(self.info.mean)) for source in images]
        alike = defaultdict[tuple[tuple[int, ...], np.dtype[Any]], list[int]](list)
        for number, pixels in enumerate(opened):
            alike[pixels.shape, pixels.dtype].append(number)  # bytes among floats would be taken for floats
        results: dict[int, Result] = {}
        for ((height, width, _), _), numbers in alike.items():
            step = max(1, _PIXELS_TOGETHER[self.device] // (height * width))
            for first in range(0, len(numbers), step):
                group = numbers[first : first + step]
                said = self._results([opened[number] for number in group], keep=True)
                results |= dict(zip(group, said, strict=True))
        return [results[number] for number in range(len(opened))]

    def class_map(self, image: Pixels) -> UInt8[np.ndarray, "h w"]:
        """Class ids of an image H W C from `read_pixels`."""
        return self._results([image], keep=False)[0].mask

    def class_map_and_confidence(self, image: Pixels) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """What `class_map` gives, and the probability of each pixel's class."""
        scores, are_logits = self._look([image])
        return best_classes(scores[0]), _shares(scores[0], are_logits).max(axis=0)

    def probabilities(self, image: Pixels) -> Float32[np.ndarray, "n h w"]:
        """Class probabilities at the image's own size, over the model's windows, scales and flips."""
        scores, are_logits = self._look([image])
        return _shares(scores[0], are_logits)

    @property
    def network(self) -> "torch.nn.Module":
        """What the file says, as a network: normalised B C H W in, logits out. This alone loads torch.

        Raises ConfigError for a file that gives class maps.
        """
        from asymseg.prediction.onnx.on_torch import file_network

        return file_network(self)

    @property
    def attends(self) -> bool:
        """Whether results have `attention`: never."""
        return False

    def _results(self, images: Sequence[Pixels], keep: bool) -> list[Result]:
        """Of images of one size."""
        if self.signature.output == "class_map":
            stack = self._stack(images)
            self._check(self.info.seeing.forms((stack.shape[2], stack.shape[3])))
            with self._room_for(images[0]):
                masks = self._run(stack)
            return [self._result(image, mask) for image, mask in zip(images, masks, strict=True)]
        scores, are_logits = self._look(images)
        if not keep:
            return [self._result(image, best_classes(each)) for image, each in zip(images, scores, strict=True)]
        results = []
        for image, each in zip(images, scores, strict=True):
            own = each if len(images) == 1 else each.copy()  # for one may outlive the others
            results.append(self._result(image, best_classes(own), own, are_logits))
        return results

    def _result(
        self, image: Pixels, mask: np.ndarray, scores: np.ndarray | None = None, are_logits: bool = True
    ) -> Result:
        """With `scores` the probabilities are made of these; without, the image is seen again."""
        classes, picture = self.info.classes, image.transpose(2, 0, 1)
        if scores is None:
            return Result(mask, classes, picture, partial(self.probabilities, image), self._no_attention)
        shares = partial(_shares, scores, are_logits)
        return Result(mask, classes, picture, shares, self._no_attention, rows=shares, held=scores.nbytes)

    def _no_attention(self) -> NoReturn:
        raise ConfigError(f"{self.path}: the insides of its blocks are not in the file; ask the model's folder")

    def _look(self, images: Sequence[Pixels]) -> tuple[Float32[np.ndarray, "b n h w"], bool]:
        """The scores of images of one size over all forms, and whether these are logits rather than probabilities."""
        if self.signature.output == "class_map":
            raise ConfigError(f"{self.path}: gives class maps and no probabilities; export it with --output logits")
        with self._room_for(images[0]):
            return self._joined(self._stack(images))

    @contextmanager
    def _room_for(self, image: Pixels) -> Iterator[None]:
        """Raises ConfigError where the block finds no memory."""
        try:
            yield
        except MemoryError:
            height, width = image.shape[:2]
            raise ConfigError(
                f"{len(self.info.classes)} classes at {height}x{width} pixels do not fit into memory; use --mode slide "
                "or a smaller --window, or the model's folder, which needs less"
            ) from None

    def _joined(self, stack: Shaped[np.ndarray, "b c h w"]) -> tuple[Float32[np.ndarray, "b n h w"], bool]:
        size, seeing = (stack.shape[2], stack.shape[3]), self.info.seeing
        forms = seeing.forms(size)
        self._check(forms)
        shares_of_windows = seeing.average == "probabilities"
        as_logits = seeing.average == "logits" or (len(forms) == 1 and (forms[0].whole or not shares_of_windows))
        total: np.ndarray | None = None
        for form in forms:
            x = stack if form.seen == size else rescaled(stack, form.seen)
            x = x[..., ::-1] if form.mirrored else x
            scores = self.logits(x) if form.whole else self._blended(x, shares_of_windows)
            scores = resized(scores, size, bool(self.settings.get("align_corners", False)))
            scores = scores[..., ::-1] if form.mirrored else scores
            if not as_logits and (form.whole or not shares_of_windows):
                scores = softmax(scores)
            total = scores if total is None else total + scores
        assert total is not None  # there is always a scale
        return total / np.float32(len(forms)) if len(forms) > 1 else total, as_logits

    def _blended(self, x: Shaped[np.ndarray, "b c h w"], by_shares: bool) -> Float32[np.ndarray, "b n h w"]:
        """What the file says of overlapping windows, each weighted as `make_axis` says."""
        seeing = self.info.seeing
        down, across = (
            make_axis(side, window, step, seeing.weighting)
            for side, window, step in zip(x.shape[2:], seeing.window, seeing.steps, strict=True)
        )
        total = np.zeros((len(x), len(self.info.classes), *x.shape[2:]), dtype=np.float32)
        for row, top in enumerate(down.starts):
            for column, left in enumerate(across.starts):
                window = (..., slice(top, top + down.window), slice(left, left + across.window))
                said = self.logits(x[window])
                weights = down.share(row)[:, None] * across.share(column)
                total[window] += weights * (softmax(said) if by_shares else said)
        return total

    def logits(self, x: Shaped[np.ndarray, "b c h w"]) -> Float32[np.ndarray, "b n h w"]:
        """What the file says of images as it takes them; the logarithms, where it gives probabilities.

        These are the logits but for a number that all classes of a pixel share. It is gone after every softmax and arg
        max, and neither a blend nor a resize parts classes by it.
        """
        said = self._run(x)
        return np.log(np.maximum(said, _LEAST)) if self.signature.output == "probabilities" else said

    def _run(self, x: Shaped[np.ndarray, "b c h w"]) -> np.ndarray:
        try:
            said: np.ndarray = self.session.run(None, {INPUT: np.ascontiguousarray(x)})[0]
        except Exception as error:  # onnxruntime's own kind for all that goes wrong, memory among it
            if not ran_out(error):
                raise
            raise MemoryError(str(error)) from None
        return said

    def _stack(self, images: Sequence[Pixels]) -> Shaped[np.ndarray, "b c h w"]:
        """Images as the file takes them: bytes, or normalised numbers."""
        stack = np.stack([image.transpose(2, 0, 1) for image in images])  # h w c -> b c h w
        if self.signature.from_bytes:
            if stack.dtype != np.uint8:
                raise no_bytes(self.path)
            return stack
        scaled = stack.astype(np.float32)
        if stack.dtype == np.uint8:
            scaled /= 255
        if self.info.channel_order == "BGR":
            scaled = scaled[:, ::-1]
        mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (self.info.mean, self.info.std))
        return (scaled - mean) / std

    def _check(self, forms: Sequence[Form]) -> None:
        """Raises ConfigError where the file cannot take or give what this way of seeing needs."""
        takes = self.signature.size
        for form in forms:
            if takes is not None and form.shown != takes:
                shown = f"{form.shown[0]}x{form.shown[1]}"
                raise ConfigError(
                    f"{self.path}: takes {takes[0]}x{takes[1]} pixels alone, and would be shown {shown}; "
                    f"use --mode slide --window {takes[0]} {takes[1]} for larger images, or export it without --size"
                )
        at_once = len(forms) == 1 and forms[0].whole and self.info.seeing.scales == (1.0,)
        if self.signature.output == "class_map" and not at_once:
            raise ConfigError(
                f"{self.path}: gives class maps, which cannot be joined; use --mode whole --scales 1 --no-flip, or "
                "export it with --output logits"
            )


def no_bytes(where: str | Path) -> DataError:
    """What is wrong where a file takes bytes and an image has other numbers."""
    return DataError(
        f"{where}: takes images of 8 bit alone; save the image so, or export the model without --from_bytes"
    )


def _shares(
    scores: Float32[np.ndarray, "n h w"], are_logits: bool, rows: slice = slice(None)
) -> Float32[np.ndarray, "n _ w"]:
    """The probabilities, of some rows or all."""
    return softmax(scores[None, :, rows])[0] if are_logits else scores[:, rows]
