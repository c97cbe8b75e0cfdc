"""Connected regions and their inside, against SciPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymseg.evaluation.regions import connected_regions, inner

ndimage = pytest.importorskip("scipy.ndimage")


def drawn(seed: int, height: int, width: int, values: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, (height, width))


def test_by_hand() -> None:
    values = np.array([[1, 1, 2, 2], [2, 1, 2, 1], [2, 2, 2, 1]])
    np.testing.assert_array_equal(connected_regions(values), [[0, 0, 1, 1], [1, 0, 1, 2], [1, 1, 1, 2]])


def test_a_spiral_is_one_region() -> None:
    grid = np.zeros((41, 41), dtype=np.uint8)
    row, column, down, right = 0, 0, 0, 1
    for length in range(40, 0, -2):
        for _ in range(2):
            for _ in range(length):
                grid[row, column] = 1
                row, column = row + down, column + right
            down, right = right, -down
    regions = connected_regions(grid)
    assert len(np.unique(regions[grid == 1])) == 1


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.integers(1, 4))
def test_regions_are_those_of_scipy(seed: int, height: int, width: int, values: int) -> None:
    grid = drawn(seed, height, width, values)
    regions = connected_regions(grid)
    count = 0
    for value in np.unique(grid):
        expected, found = ndimage.label(grid == value)
        for number in range(1, found + 1):
            assert len(np.unique(regions[expected == number])) == 1
        count += found
    firsts = [int(np.flatnonzero(regions == number)[0]) for number in range(count)]
    assert regions.max() == count - 1
    assert firsts == sorted(firsts)


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 20), st.integers(0, 4))
def test_inside_is_scipys_erosion(seed: int, height: int, width: int, depth: int) -> None:
    grid = drawn(seed, height, width, 2).repeat(3, axis=0).repeat(3, axis=1)
    expected = np.zeros(grid.shape, dtype=bool)
    for value in (0, 1):
        eroded = ndimage.binary_erosion(grid == value, iterations=depth, border_value=1) if depth else grid == value
        expected |= eroded
    np.testing.assert_array_equal(inner(grid, depth), expected)
