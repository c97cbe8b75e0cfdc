"""The workflow runs what a developer runs, with the versions and Pythons that pyproject.toml promises."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def commands(job: str) -> str:
    return "\n".join(step.get("run", "") for step in WORKFLOW["jobs"][job]["steps"])


def test_the_oldest_versions_are_those_that_are_promised():
    floors = dict(entry.split(">=") for entry in PROJECT["dependencies"])
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in lines if "==" in line)
    assert set(oldest) == {"torch", "torchvision", "timm"}
    for name, version in oldest.items():
        assert version.removesuffix(".0") == floors[name]


def test_the_oldest_python_is_tried():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert oldest in WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python"]


def test_what_is_run_is_there_and_installed_as_by_make_setup():
    extras = '-e ".[raster,video,formats,export,serve,ray]"'
    assert extras in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert extras in commands("tests")
    assert ".ci/run" in commands("all")
    for word in commands("proofs").split():
        assert not word.endswith(".py") or (ROOT / word).is_file(), word


def test_nothing_is_compiled_by_an_installation():
    """Compiled operations would tie a release to versions of torch and CUDA, and each new one would break it."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert "hooks" not in tool
    found = {path.suffix for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert ".py" in found
    assert not found & {".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".pyx", ".rs", ".so", ".pyd", ".dll", ".dylib"}
