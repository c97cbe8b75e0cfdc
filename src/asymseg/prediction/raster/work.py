"""Two ways to predict a raster in rows of tiles: each tile by itself and blended, or with the whole image's context."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from asymseg.data.prefetching import prefetched
from asymseg.prediction.predict import Predictor
from asymseg.prediction.raster.blending import add_tile, lay_tiles, open_shapes, span
from asymseg.prediction.raster.pixels import CLASSES, SHARES, put_classes, put_shares
from asymseg.prediction.raster.reading import Raster
from asymseg.prediction.raster.state import Unfinished
from asymseg.prediction.streaming import gather_tokens, predict_tile
from asymseg.prediction.tiles import plan_tiles
from asymseg.prediction.tokens import Tokens
from asymseg.prediction.windows import Axis

Progress = Callable[[int, int], None]
"""Called with how many tiles are done and how many there are."""

_TOKENS = "tokens.safetensors"


@dataclass(frozen=True)
class Work:
    """A raster in rows of tiles, and what predicts those that a state lacks."""

    rows: int
    across: int
    run: Callable[[Unfinished, bool, Progress], None]
    """Of the state, whether probabilities are wanted, and whom to tell."""


def blended(predictor: Predictor, raster: Raster, tile: int, overlap: int) -> Work:
    """Tiles that overlap, each predicted by itself; their probabilities are averaged."""
    rows, columns = (lay_tiles(length, tile, overlap) for length in raster.size)
    across, classes = len(columns.starts), len(predictor.info.classes)

    def run(state: Unfinished, probabilities: bool, progress: Progress) -> None:
        for row in range(state.rows, len(rows.starts)):
            above = state.sums(row - 1, open_shapes(rows, columns, row - 1, classes)) if row > 0 else repeat(None)
            left = None
            with closing(_read_row(raster, span(rows, row), columns)) as parts:
                for column, (image, valid) in enumerate(parts):
                    shares = predictor.probabilities(image) if valid.any() else None
                    sums, below, left = add_tile(shares, (row, column), rows, columns, left, next(above), classes)
                    valid = valid[: sums.shape[1], : sums.shape[2]]
                    corner = (rows.starts[row], columns.starts[column])
                    put_shares(state, sums, valid, corner, raster.size[1], probabilities)
                    state.keep_sums(row, column, below)
                    progress(row * across + column + 1, len(rows.starts) * across)
            state.advance(*_files(probabilities))

    return Work(len(rows.starts), across, run)


def streamed(predictor: Predictor, raster: Raster, tile: int, halo: int | None) -> Work:
    """Tiles side by side with the context of the whole image, for which all are read beforehand.

    That context is kept with the state. See `asymseg.prediction.streaming`.
    """
    tiles = plan_tiles(predictor, raster.size, tile, halo)
    across = sum(part.core[0] == tiles[0].core[0] for part in tiles)

    def run(state: Unfinished, probabilities: bool, progress: Progress) -> None:
        begun = 0

        def gathered(done: int, total: int) -> None:
            nonlocal begun
            begun = total
            progress(done, total + len(tiles))

        kept = state.path(_TOKENS)
        if kept.exists():
            tokens = Tokens.load(kept)
        else:
            tokens = gather_tokens(predictor, raster, tiles, gathered)
            tokens.save(kept)
        for row in range(state.rows, len(tiles) // across):
            for number in range(row * across, (row + 1) * across):
                part = tiles[number]
                corner = (part.core[0].start, part.core[1].start)
                valid = raster.read_valid(*part.core)[1]
                if probabilities:
                    shares = predict_tile(predictor, tokens, raster, part, probabilities=True)
                    put_shares(state, shares, valid, corner, raster.size[1], True)
                else:
                    put_classes(state, predict_tile(predictor, tokens, raster, part), valid, corner, raster.size[1])
                progress(begun + number + 1, begun + len(tiles))
            state.advance(*_files(probabilities))

    return Work(len(tiles) // across, across, run)


def _read_row(
    raster: Raster, rows: slice, columns: Axis
) -> Generator[tuple[Tensor, Bool[np.ndarray, "h w"]], None, None]:
    """Each tile of a row and which of its pixels hold data, read while the one before is predicted.

    To be closed, so that nobody reads on when the raster is closed.
    """
    parts = [span(columns, number) for number in range(len(columns.starts))]
    yield from prefetched(parts, lambda part: raster.read_valid(rows, part), 1)  # one thread: a dataset is not for two


def _files(probabilities: bool) -> tuple[str, ...]:
    return (CLASSES, SHARES) if probabilities else (CLASSES,)
