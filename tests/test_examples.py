"""The examples run as they stand, with fewer steps."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_shape_checks: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_apnb_in_a_network_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    run("own_network.py", "--steps", "2", "--batch", "2")
    assert capsys.readouterr().out.count("of the discs' pixels are right") == 2


def test_a_backbone_of_ones_own() -> None:
    run("own_backbone.py", "--out", "here", "--steps", "2")
    assert {path.name for path in Path("here/own-backbone").iterdir()} >= {"model.safetensors", "config.json"}
    assert Path("here/own-backbone.png").is_file()


def test_a_walk(capsys: pytest.CaptureFixture[str]) -> None:
    run("walk.py", "walked", "2", "8")
    assert "drew most on" in capsys.readouterr().out
    assert Path("walked/run/report.html").is_file()
    assert Path("walked/attention.png").is_file()


def test_a_checkpoint_of_mmsegmentation_keeps_its_logits(capsys: pytest.CaptureFixture[str]) -> None:
    run("from_mmsegmentation.py", "--out", "here")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("largest difference"))
    assert float(line.split()[-3]) < 1e-5
    assert Path("here/model/model.safetensors").is_file()
