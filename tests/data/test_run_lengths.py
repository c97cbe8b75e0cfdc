"""COCO's run lengths, as pycocotools writes and reads them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coder

from asymseg.data.catalog.run_lengths import region
from asymseg.errors import DataError

HERE = Path("labels.json")


def regions() -> list[np.ndarray]:
    """Noise of several densities and sizes, nothing, everything, and runs long enough for several characters."""
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 7), (9, 1), (8, 10), (33, 40)]
    noise = [rng.random(size) < share for size in sizes for share in (0.0, 0.1, 0.5, 1.0)]
    long = np.zeros((700, 900), dtype=bool)
    long[3:690, 10:400] = long[100, 500] = long[5:600, 890] = True
    return [*noise, long]


@pytest.mark.parametrize("number", range(len(regions())))
def test_what_pycocotools_writes_is_read(number):
    wanted = regions()[number]
    coded = coder.encode(np.asfortranarray(wanted.astype(np.uint8)))
    for counts in (coded["counts"], coded["counts"].decode()):
        assert (region(counts, wanted.shape, HERE) == wanted).all()
    flat = wanted.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    plain = np.diff(edges, prepend=0, append=flat.size).tolist()
    assert (region(plain, wanted.shape, HERE) == wanted).all()


def test_polygons_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(1)
    for _ in range(20):
        (runs,) = coder.frPyObjects([rng.uniform(-5, 45, 14).tolist()], 40, 30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of their decode
            wanted = coder.decode(runs).astype(bool)
        assert (region(runs["counts"], (40, 30), HERE) == wanted).all()


@pytest.mark.parametrize("counts", [b"", b"94400000g", "9", [10, 3], [84, -4], "\u00e9"])
def test_damaged_run_lengths_are_refused(counts):
    with pytest.raises(DataError, match=r"labels\.json: run lengths that do not fill an image of 8 x 10"):
        region(counts, (8, 10), HERE)
