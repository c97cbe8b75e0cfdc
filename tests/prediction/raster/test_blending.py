"""Tiles that overlap: each pixel's weights add up to 1, and sums kept in pieces are the plain sum over all tiles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asymseg.errors import ConfigError
from asymseg.prediction.raster.blending import add_tile, finished, lay_tiles, span

SIDES = st.integers(1, 30)


@settings(deadline=None, max_examples=50)
@given(length=SIDES, tile=SIDES, overlap=SIDES)
def test_tiles_cover_a_side_and_their_weights_add_up_to_one(length, tile, overlap):
    overlap = min(overlap, tile - 1)
    axis = lay_tiles(length, tile, overlap)
    total = torch.zeros(length)
    for number in range(len(axis.starts)):
        part = span(axis, number)
        assert 0 <= part.start < part.stop <= length
        assert part.stop - part.start == min(tile, length)
        total[part] += torch.from_numpy(axis.share(number))
    torch.testing.assert_close(total, torch.ones(length))
    done = [pixel for number in range(len(axis.starts)) for pixel in range(length)[finished(axis, number)]]
    assert done == list(range(length))


@pytest.mark.parametrize(("tile", "overlap"), [(8, 8), (8, -1)])
def test_an_overlap_as_wide_as_a_tile_is_refused(tile, overlap):
    with pytest.raises(ConfigError, match="overlap"):
        lay_tiles(20, tile, overlap)


@settings(deadline=None, max_examples=50)
@given(height=SIDES, width=SIDES, tile=st.integers(4, 12), overlap=st.integers(0, 11), seed=st.integers(0, 99))
def test_sums_in_pieces_are_the_plain_sum(height, width, tile, overlap, seed):
    overlap = min(overlap, tile - 1)
    rows, columns = lay_tiles(height, tile, overlap), lay_tiles(width, tile, overlap)
    generator = torch.Generator().manual_seed(seed)
    plain, pieced = torch.zeros(2, height, width), torch.full((2, height, width), torch.nan)
    above: list[torch.Tensor | None] = [None] * len(columns.starts)
    for row in range(len(rows.starts)):
        left = None
        for column in range(len(columns.starts)):
            shape = (2, rows.window, columns.window)
            said = torch.rand(shape, generator=generator) if (row + column + seed) % 4 else None
            if said is not None:
                weights = torch.from_numpy(rows.share(row)[:, None] * columns.share(column))
                plain[:, span(rows, row), span(columns, column)] += said * weights
            sums, above[column], left = add_tile(said, (row, column), rows, columns, left, above[column], 2)
            assert pieced[:, finished(rows, row), finished(columns, column)].isnan().all()
            pieced[:, finished(rows, row), finished(columns, column)] = sums
    torch.testing.assert_close(pieced, plain)
