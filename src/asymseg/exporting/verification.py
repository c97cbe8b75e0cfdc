"""The proof that an exported file computes what the network computes, at many sizes, before the file gets its name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asymseg.errors import ExportError
from asymseg.exporting.graph import Graph

Run = Callable[[np.ndarray], np.ndarray]
"""A loaded file: image in, what its signature says out."""
Tell = Callable[[str], None]
"""Told in a word what is being done."""

SIZES = (
    (1, 1),
    (3, 50),
    (16, 16),
    (37, 53),
    (64, 128),
    (65, 97),
    (96, 40),
    (129, 257),
    (200, 31),
    (224, 224),
    (256, 512),
)
"""Heights and widths: tiny, odd, even, wide, tall and large."""
BATCHES = (1, 3)
LARGE = 200 * 200
"""Pixels above which a size, where there are others, is tried with one image alone."""

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest absolute logit of the image."""
HALF_TOLERANCE = 2e-2


@dataclass(frozen=True)
class Case:
    """One comparison: the shape of the input, and the largest difference in logits as a share of the largest."""

    batch: int
    height: int
    width: int
    error: float


def verify(
    run: Run,
    graph: Graph,
    tolerance: float,
    sizes: Sequence[tuple[int, int]] = SIZES,
    least: int = 1,
    tell: Tell = lambda _: None,
) -> tuple[Case, ...]:
    """Compare a file with the network in PyTorch; all cases where they agree.

    A class map has no logits to compare; there a pixel may differ only where the two best logits are closer than the
    tolerance, and the error is the widest gap between them at such a pixel.

    Args:
        run: The loaded file.
        graph: The same computation in plain PyTorch: the network in its plain form, in float32.
        tolerance: Largest difference allowed.
        sizes: Heights and widths to try; one alone where the file takes only that.
        least: The least height and width that the file takes; smaller sides are tried at that.
        tell: Told at which size it is.

    Raises:
        ExportError: They differ, or the file cannot take a size.
    """
    cases = []
    for number, (height, width) in enumerate(((max(h, least), max(w, least)) for h, w in sizes), start=1):
        tell(f"comparing with the network: size {number} of {len(sizes)}")
        for batch in BATCHES if height * width <= LARGE or len(sizes) == 1 else BATCHES[:1]:
            image = _image(graph, batch, height, width)
            where = f"{batch} x {height} x {width}"
            try:
                given = run(image.numpy())
            except Exception as failure:  # whatever a runtime raises, the user learns at which size
                reason = " ".join(str(failure).split())[:300]
                raise ExportError(
                    f"the exported network fails at {where} (batch x height x width): {reason}"
                ) from failure
            error = _difference(given, graph, image, where)
            if not error <= tolerance:
                raise ExportError(
                    f"the exported network differs from the original at {where} (batch x height x width) by "
                    f"{error:.2g} of the largest logit, where {tolerance:g} is allowed; nothing was written"
                )
            cases.append(Case(batch, height, width, error))
    return tuple(cases)


Prove = Callable[[Run, int], tuple[Case, ...]]
"""Compares a loaded file with the plain network at all sizes from a least side on."""


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """The proof in the form that is kept in the file."""
    return {
        "verification": {
            "largest_error": max(case.error for case in cases),
            "cases": [[case.batch, case.height, case.width, case.error] for case in cases],
        }
    }


def _image(graph: Graph, batch: int, height: int, width: int) -> Tensor:
    """Noise over a smooth ground, so that pooled tokens differ from place to place and from image to image."""
    random = torch.Generator().manual_seed(height * 10_007 + width)
    channels = len(graph.mean)
    ground = torch.randn(batch, channels, 3, 4, generator=random)
    ground = F.interpolate(ground, (height, width), mode="bilinear")
    image = ground + 0.5 * torch.randn(batch, channels, height, width, generator=random)
    return (image * 64 + 128).clamp(0, 255).to(torch.uint8) if graph.signature.from_bytes else image


@torch.no_grad()
def _difference(given: np.ndarray, graph: Graph, image: Tensor, where: str) -> float:
    """How far the file's answer lies from the network's."""
    logits = graph.logits(image)
    scale = max(float(logits.abs().max()), torch.finfo(torch.float32).tiny)  # a network may say nothing but 0
    expected = graph.answer(logits)
    if given.shape != tuple(expected.shape):
        raise ExportError(
            f"the exported network gives the shape {given.shape} at {where} (batch x height x width), "
            f"the original {tuple(expected.shape)}; nothing was written"
        )
    answer = torch.from_numpy(given)
    if graph.signature.output == "logits":
        return float((answer - expected).abs().max()) / scale
    if graph.signature.output == "probabilities":
        return float((answer - expected).abs().max())
    if int(answer.max()) >= logits.shape[1]:
        return math.nan  # no class at all, which is beyond any tolerance
    best = logits.amax(dim=1)
    chosen = logits.gather(1, answer.long()[:, None])[:, 0]
    return float((best - chosen).max()) / scale
