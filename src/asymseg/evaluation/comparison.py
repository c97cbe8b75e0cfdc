"""What a comparison of two models found, in numbers and in words."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from asymseg.evaluation.bootstrap import Interval
from asymseg.evaluation.metrics import json_number


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images; every difference is B minus A, in fractions of 1."""

    classes: tuple[str, ...]
    split: str
    miou: tuple[float, float]
    """Of A and of B."""
    difference: Interval
    """Of the mIoU."""
    probability: float
    """The share of replicates in which the mIoU of B is above that of A; where they are equal, half counts."""
    pixel_accuracy: tuple[float, float]
    accuracy_difference: Interval
    iou: tuple[tuple[float, float], ...]
    """Of A and of B, for each class."""
    iou_differences: tuple[Interval, ...]
    images: tuple[tuple[str, float, float], ...]
    """Name, and mIoU of A and of B over the classes the image has."""
    level: float
    replicates: int
    seed: int

    @property
    def verdict(self) -> str:
        """In words: a model is better if the whole interval of the difference says so."""
        if self.difference.low > 0:
            return "B is better"
        if self.difference.high < 0:
            return "A is better"
        return "A and B cannot be told apart"

    def apart(self) -> list[str]:
        """The classes whose interval leaves 0 out."""
        spans = zip(self.classes, self.iou_differences, strict=True)
        return [name for name, span in spans if span.low > 0 or span.high < 0]

    def most_different(self, count: int) -> tuple[list[tuple[str, float, float]], list[tuple[str, float, float]]]:
        """The images where B gains most on A, and those where it loses most."""
        known = sorted((entry for entry in self.images if entry[1] != entry[2]), key=lambda entry: entry[1] - entry[2])
        known = [entry for entry in known if not np.isnan(entry[1] + entry[2])]
        gains = [entry for entry in known if entry[2] > entry[1]]
        losses = [entry for entry in reversed(known) if entry[2] < entry[1]]
        return gains[:count], losses[:count]

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""

        def both(values: tuple[float, float], span: Interval) -> dict[str, Any]:
            return {
                "a": json_number(values[0]),
                "b": json_number(values[1]),
                "difference": json_number(span.value),
                "interval": span.to_list(),
            }

        return {
            "split": self.split,
            "images": len(self.images),
            "verdict": self.verdict,
            "level": self.level,
            "replicates": self.replicates,
            "seed": self.seed,
            "probability_b_better": json_number(self.probability),
            "miou": both(self.miou, self.difference),
            "pixel_accuracy": both(self.pixel_accuracy, self.accuracy_difference),
            "classes": {
                name: both(values, span)
                for name, values, span in zip(self.classes, self.iou, self.iou_differences, strict=True)
            },
            "per_image_miou": {name: [json_number(a), json_number(b)] for name, a, b in self.images},
        }
