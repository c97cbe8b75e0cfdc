"""Connected regions of a map of values, and how deep they are."""

import numpy as np
from jaxtyping import Bool, Int64, Shaped


def connected_regions(values: Shaped[np.ndarray, "h w"]) -> Int64[np.ndarray, "h w"]:
    """The number of each pixel's region: pixels of one value that touch along their sides.

    Regions are numbered from 0 in the order of their first pixel, row by row.
    """
    height, width = values.shape
    begins = np.ones((height, width), dtype=bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    runs = np.cumsum(begins).reshape(height, width) - 1  # each stretch of a row that has one value
    touching = values[1:] == values[:-1]
    joined = _join(int(runs[-1, -1]) + 1, runs[:-1][touching], runs[1:][touching])
    numbers: np.ndarray = np.unique(joined, return_inverse=True)[1]
    regions: np.ndarray = numbers[runs]
    return regions


def inner(regions: Int64[np.ndarray, "h w"], depth: int) -> Bool[np.ndarray, "h w"]:
    """Whether a pixel's region covers all pixels up to `depth` steps away; what the image cuts off is not missed."""
    inside = np.ones(regions.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(regions, axis=axis) != 0
        inside &= ~_beside(differs, axis)
    for _ in range(depth - 1):
        padded = np.pad(inside, 1, constant_values=True)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside if depth > 0 else np.ones_like(inside)


def _beside(differs: Bool[np.ndarray, "_ _"], axis: int) -> Bool[np.ndarray, "_ _"]:
    """Which pixels lie on either side of an edge."""
    before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
    before[axis], after[axis] = (1, 0), (0, 1)
    touched: np.ndarray = np.pad(differs, before) | np.pad(differs, after)
    return touched


def _join(
    count: int, one: Int64[np.ndarray, " edges"], other: Int64[np.ndarray, " edges"]
) -> Int64[np.ndarray, " count"]:
    """The smallest number in the group of each of `count` nodes, where the edges `one`-`other` make the groups."""
    parent = np.arange(count)
    while True:
        low, high = np.minimum(parent[one], parent[other]), np.maximum(parent[one], parent[other])
        apart = low != high
        if not apart.any():
            return parent
        one, other = one[apart], other[apart]  # what is joined stays joined
        np.minimum.at(parent, high[apart], low[apart])
        while (above := parent[parent]).tobytes() != parent.tobytes():
            parent = above
