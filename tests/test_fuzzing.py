"""Damaged and hostile files: a few of each kind, by the command that takes tens of thousands."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the limits of time and memory are those of Unix")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
INPUTS = 30


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its files can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in ("fuzz_readers", "readers", "mutations", "uploads"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name",
    [
        *("images", "masks", "classes.json", "settings.yaml", "coco", "labelme", "cvat", "split lists"),
        *("pascal-context", "mat", "rasters", "metrics.json", "training.pt", "SHA256SUMS", "id2label.json"),
        *("run.json", "done", "image lists", "keys"),
    ],
)
@pytest.mark.usefixtures("benchmarks", "no_shape_checks")
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    from fuzz_readers import judged
    from readers import READERS

    reader = READERS[name][0](tmp_path)
    for number in range(INPUTS):
        choose = random.Random(f"1 {name} {number}")
        outcome, fault = judged(reader, choose.choice(reader.changes)(choose, reader.wholes))
        assert not fault, f"{number}: {outcome}: {fault}"
