"""All that a network said about an image, joined at the image's own size some rows at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from asymseg.errors import ConfigError
from asymseg.model.seeing import Average
from asymseg.prediction.mosaic import Mosaic, blended
from asymseg.prediction.portions import Portions, attempt
from asymseg.prediction.upsampling import View, numbers_per_row, upsampled


@dataclass(frozen=True)
class Answer:
    """What was said of each form in which the network saw the image, and how that becomes one."""

    views: tuple[View | Mosaic, ...]
    size: tuple[int, int]
    align_corners: bool
    average: Average
    device: torch.device
    portions: Portions

    @torch.inference_mode()
    def class_map(self, confidence: Float[Tensor, "h w"] | None = None) -> UInt8[Tensor, "h w"]:
        """Class ids; `confidence`, if given, receives the probability of each."""
        mask = torch.empty(self.size, dtype=torch.uint8, device=self.device)

        def decide(rows: slice) -> int:
            scores, are_logits = self.joined(rows)
            mask[rows] = scores.argmax(dim=0)
            if confidence is not None:
                best = scores.amax(dim=0)
                # of logits, the softmax of the largest
                confidence[rows] = (scores - best).exp_().sum(dim=0).reciprocal_() if are_logits else best
            return int(rows.stop)

        self._in_bands(decide)
        return mask

    @torch.inference_mode()
    def probabilities(self) -> Float[Tensor, "n h w"]:
        """Of each class; on the device, or where there is no room in the computer's own memory. Raises ConfigError."""
        view = self.views[0]
        count = (view.strips[0].logits[0] if isinstance(view, Mosaic) else view.logits).shape[1]
        shares = attempt(lambda: torch.empty(count, *self.size, device=self.device))
        if shares is None:
            shares = attempt(lambda: torch.empty(count, *self.size))
        if shares is None:
            raise ConfigError(
                f"the probabilities of {count} classes at {self.size[0]}x{self.size[1]} pixels do not fit into memory; "
                "ask for the class map alone"
            )

        def share(rows: slice) -> int:
            shares[:, rows] = self.rows(rows)
            return int(rows.stop)

        self._in_bands(share)
        return shares

    @torch.inference_mode()
    def rows(self, rows: slice) -> Float[Tensor, "n r w"]:
        """The probabilities of some rows."""
        scores, are_logits = self.joined(rows)
        return scores.softmax(dim=0) if are_logits else scores

    @property
    def nbytes(self) -> int:
        """Of the coarse logits; without those of strips that are made when they are asked for."""
        held: list[Tensor] = []
        for view in self.views:
            if isinstance(view, View):
                held.append(view.logits)
            elif isinstance(view.strips, dict):
                held += [logits for strip in view.strips.values() for logits in strip.logits]
        return sum(logits.nbytes for logits in held)

    def joined(self, rows: slice) -> tuple[Float[Tensor, "n r w"], bool]:
        """Scores of some rows over all views, and whether these are logits rather than probabilities."""
        if self.average == "logits" or len(self.views) == 1:
            as_logits = not any(isinstance(view, Mosaic) and view.shares for view in self.views)
        else:
            as_logits = False
        total = self._scores(self.views[0], rows, as_logits)
        for view in self.views[1:]:
            total += self._scores(view, rows, as_logits)
        return (total.div_(len(self.views)) if len(self.views) > 1 else total), as_logits

    def _scores(self, view: View | Mosaic, rows: slice, as_logits: bool) -> Float[Tensor, "n r w"]:
        if isinstance(view, Mosaic):
            scores = blended(view, self.size, rows, self.align_corners)
            scores = scores if as_logits or view.shares else scores.softmax(dim=0)
        else:
            scores = upsampled(view, self.size, rows, self.align_corners)
            scores = scores if as_logits else scores.softmax(dim=0)
        return scores.to(self.device)

    def _in_bands(self, work: Callable[[slice], int]) -> None:
        """Do the work, which gives the row that comes next, in bands as tall as memory allows. Raises ConfigError."""
        per_row = max(
            view.numbers_per_row(self.size) if isinstance(view, Mosaic) else numbers_per_row(view, self.size)
            for view in self.views
        )
        first = 0
        while first < self.size[0]:
            step = max(1, self.portions.numbers // per_row)
            rows = slice(first, min(first + step, self.size[0]))
            done = attempt(partial(work, rows))
            if done is not None:
                first = done
            elif rows.stop - first > 1:
                self.portions.lower("fewer rows are classified at once")
                self.portions.numbers = (rows.stop - first) // 2 * per_row
            else:
                size = f"{self.size[0]}x{self.size[1]} pixels ({self.device.type})"
                raise ConfigError(
                    f"not even one row of {per_row} scores fits into memory beside what the network said of an image "
                    f"of {size}; use --mode slide, or a smaller --window"
                )
