"""The audit: finds every planted fault, accuses nothing else, and says nothing of clean data."""

import shutil
from pathlib import Path

import pytest
from label_faults import FAULTS, make_clean, places

from asymseg.data.audit.audit import Audit, audit

CAMVID = Path(__file__).parents[3].parent / "shared" / "data" / "camvid"


def accused(result: Audit) -> set[tuple[str, Path]]:
    return {(finding.kind, path) for finding in result.findings for path in finding.files}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean") / "data"
    make_clean(root, train=2 * len(FAULTS), val=len(FAULTS))
    return root


def test_clean_data_is_clean(clean: Path) -> None:
    assert audit(clean).findings == ()


def test_every_planted_fault_is_found_and_nothing_else(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    planted = {entry for fault, place in zip(FAULTS, places(root), strict=True) for entry in fault(place)}
    assert len(FAULTS) >= 30
    found = accused(audit(root))
    assert planted - found == set()
    assert {(kind, path.name) for kind, path in found - planted} == set()
