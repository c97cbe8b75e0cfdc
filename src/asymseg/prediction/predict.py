"""Predictor: one image in, class ids and probabilities of its own size out."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from asymseg.data.pixels import open_pixels
from asymseg.errors import ConfigError
from asymseg.model.checkpoint import parameter_count
from asymseg.model.info import ModelInfo
from asymseg.prediction.answer import Answer
from asymseg.prediction.attending import attend, attends
from asymseg.prediction.device import Device, Precision
from asymseg.prediction.execution import Coarse, normalised, prepare, scaled
from asymseg.prediction.execution import choose_device as choose_device
from asymseg.prediction.mosaic import Mosaic, Strips, see_strip
from asymseg.prediction.portions import Done, Portions, attempt
from asymseg.prediction.result import AnyPredictor, Result
from asymseg.prediction.upsampling import View
from asymseg.prediction.windows import make_axis

ImageSource = str | Path | Image.Image | np.ndarray | Tensor


class Predictor(AnyPredictor):
    """A network with all it needs to take real images.

    `network` takes normalised B C H W and gives logits; calling the predictor does everything around that. Where memory
    runs out it warns once, and goes on in smaller portions with the same results; where not even those fit, ConfigError
    names the cure.

    Args:
        network: A trained network; with `fold` its evaluation form is made and used.
        info: What travels with the weights.
        device: auto is a GPU where there is one.
        precision: auto is fp32; bf16 and fp16 are faster on GPUs that have them, and change some pixels.
        compile: Compile the network, anew for each size of image; for many images of one size on a GPU.
        fold: Whether to use the network's evaluation form, which has the same logits.
    """

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        device: Device = "auto",
        *,
        precision: Precision = "auto",
        compile: bool = False,
        fold: bool = True,
    ) -> None:
        self.device = choose_device(device)
        self.parameters = parameter_count(network)
        self.network = prepare(network, self.device, folding=fold)
        self.info = info
        self.portions = Portions.usual(self.device)
        self.coarse = Coarse(self.network, self.device, precision, compiling=compile)

    def __call__(self, source: ImageSource, *, keep: bool = True) -> Result:
        """Predict a path, a PIL image, an array H W 3 of bytes, or a tensor C H W of bytes or floats 0..1.

        With `keep` the network's coarse logits are held, so that the probabilities can be had later; without, the image
        is seen again should they be asked for.
        """
        image = to_tensor(source, len(self.info.mean))
        if keep:
            return self._result(image, self._look(image, keep=True))
        mask = self.class_map(image).cpu().numpy()
        shares = partial(_as_array, partial(self.probabilities, image))
        return Result(mask, self.info.classes, image.numpy(), shares, partial(attend, self.coarse, self.info, image))

    def several(self, sources: Sequence[ImageSource]) -> list[Result]:
        """What the call gives for each; images of one size that are seen whole go through the network together.

        Sums are then made in another order, so that a pixel whose best classes are as good as equal may differ.
        """
        images = [to_tensor(source, len(self.info.mean)) for source in sources]
        alike = defaultdict[tuple[torch.Size, torch.dtype], list[int]](list)
        for number, image in enumerate(images):
            alike[image.shape, image.dtype].append(number)
        results: dict[int, Result] = {}
        for numbers in alike.values():
            step = self._together(images[numbers[0]], len(numbers))
            for first in range(0, len(numbers), step):
                group = numbers[first : first + step]
                answers = self._look_together([images[number] for number in group])
                results |= {n: self._result(images[n], answer) for n, answer in zip(group, answers, strict=True)}
        return [results[number] for number in range(len(images))]

    @property
    def attends(self) -> bool:
        """Whether results have `attention`; with the mode slide, of images no larger than a window."""
        return attends(self.network, self.info.seeing)

    def class_map(self, image: Tensor) -> UInt8[Tensor, "h w"]:
        """Class ids of an image C H W from `read_image`: what `probabilities(image).argmax(0)` gives, for less.

        Memory, beside what the network itself takes: the image in floats at each of the scales, and some rows of the
        map of all classes. Of a view that is seen whole the coarse logits are held, until all views are joined; of one
        seen by windows those of the windows that cross the rows in work.
        """
        return self._look(image).class_map()

    def class_map_and_confidence(self, image: Tensor) -> tuple[UInt8[Tensor, "h w"], Float[Tensor, "h w"]]:
        """What `class_map` gives, and the probability of each pixel's class; the other classes' are never kept."""
        confidence = torch.empty(image.shape[1], image.shape[2], device=self.device)
        return self._look(image).class_map(confidence), confidence

    def probabilities(self, image: Tensor) -> Float[Tensor, "n h w"]:
        """Class probabilities at the image's own size, over the model's windows, scales and flips."""
        return self._look(image).probabilities()

    def _result(self, image: Tensor, answer: Answer) -> Result:
        mask = answer.class_map().cpu().numpy()
        weights = partial(attend, self.coarse, self.info, image)
        return Result(
            mask,
            self.info.classes,
            image.numpy(),
            partial(_as_array, answer.probabilities),
            weights,
            rows=partial(_rows, answer),
            held=answer.nbytes,
        )

    def _together(self, image: Tensor, count: int) -> int:
        """How many of `count` images of that size the network sees together."""
        forms = self.info.seeing.forms((image.shape[1], image.shape[2]))
        if not all(form.whole for form in forms):
            return 1
        return self.portions.windows(count, max(form.seen for form in forms))

    @torch.inference_mode()
    def _look_together(self, images: list[Tensor]) -> list[Answer]:
        """What the network says of each image; all have one size, and where there are several are seen whole."""
        answers = attempt(lambda: self._look_at_stack(images)) if len(images) > 1 else None
        return answers or [self._look(image, keep=True) for image in images]

    def _look_at_stack(self, images: list[Tensor]) -> list[Answer]:
        size = (images[0].shape[1], images[0].shape[2])
        views = list[tuple[View, ...]]()
        pixels = torch.cat([normalised(image, self.info, self.device) for image in images])
        for form in self.info.seeing.forms(size):
            if not form.mirrored:  # the mirrored form follows its upright one
                x = scaled(pixels, form.seen)
            view = self._view(x, form.mirrored)
            # of its own memory, for one may outlive the others
            views.append(tuple(replace(view, logits=logits[None].clone()) for logits in view.logits))
        return [self._answer(own, size) for own in zip(*views, strict=True)]

    @torch.inference_mode()
    def _look(self, image: Tensor, keep: bool = False) -> Answer:
        """What the network says of the image; with `keep` nothing is left to be asked of it later."""
        size, views = (image.shape[1], image.shape[2]), list[View | Mosaic]()
        pixels = self._with_room(partial(normalised, image, self.info, self.device), size, views)
        for form in self.info.seeing.forms(size):
            if not form.mirrored:  # the mirrored form follows its upright one
                x = self._with_room(partial(scaled, pixels, form.seen), form.seen, views)
            if form.whole:
                views.append(self._with_room(partial(self._view, x, form.mirrored), form.seen, views))
            else:
                views.append(self._mosaic(x, form.mirrored, keep))
        return self._answer(tuple(views), size)

    def _answer(self, views: tuple[View | Mosaic, ...], size: tuple[int, int]) -> Answer:
        align_corners = bool(getattr(self.network, "align_corners", False))
        return Answer(views, size, align_corners, self.info.seeing.average, self.device, self.portions)

    def _view(self, x: Float[Tensor, "b c h w"], mirrored: bool) -> View:
        logits, covers = self.coarse(x.flip(3) if mirrored else x)
        return View(logits.cpu() if self.portions.hosting else logits, covers, (x.shape[2], x.shape[3]), mirrored)

    def _mosaic(self, x: Float[Tensor, "1 c h w"], mirrored: bool, keep: bool) -> Mosaic:
        seeing, seen = self.info.seeing, (x.shape[2], x.shape[3])
        down, across = (
            make_axis(side, window, step, seeing.weighting)
            for side, window, step in zip(seen, seeing.window, seeing.steps, strict=True)
        )
        look = partial(
            see_strip,
            coarse=self.coarse,
            pixels=x,
            mirrored=mirrored,
            down=down,
            across=across,
            portions=self.portions,
        )
        strips = {number: look(number) for number in range(len(down.starts))} if keep else Strips(look)
        return Mosaic(strips, down, across, seen, mirrored, shares=seeing.average == "probabilities")

    def _with_room(self, work: Callable[[], Done], seen: tuple[int, int], views: list[View | Mosaic]) -> Done:
        """What the work gives, if need be once the views so far are out of the device's memory. Raises ConfigError."""
        while (done := attempt(work)) is None:
            if self.portions.hosting or not views:
                cure = "--mode slide" if self.info.seeing.mode == "whole" else "a smaller --window"
                raise ConfigError(
                    f"an image seen at {seen[0]}x{seen[1]} pixels does not fit into memory in one piece "
                    f"({self.device.type}); use {cure}"
                )
            self.portions.lower("what the network said of each view waits in the computer's own memory")
            self.portions.hosting = True
            views[:] = [replace(v, logits=v.logits.cpu()) if isinstance(v, View) else v for v in views]
        return done


def _as_array(probabilities: Callable[[], Tensor]) -> Float[np.ndarray, "n h w"]:
    return probabilities().cpu().numpy()


def _rows(answer: Answer, rows: slice) -> Float[np.ndarray, "n r w"]:
    return answer.rows(rows).cpu().numpy()


def to_tensor(source: ImageSource, channels: int) -> Tensor:
    """Any image a user may hold, as C H W bytes or floats 0..1. Raises DataError."""
    return torch.from_numpy(open_pixels(source, channels)).permute(2, 0, 1)  # h w c -> c h w
