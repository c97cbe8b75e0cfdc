"""The rules of the house that a reader cannot see in one file: who may import whom, and what no file may hold."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "asymseg"
SOURCES = sorted(PACKAGE.rglob("*.py"))

ORDER = (
    "errors",
    "atomic",
    "classes",
    "pages",
    "config",
    "blocks",
    "model",
    "data",
    "prediction",
    "evaluation",
    "training",
    "benchmarking",
)
"""Each stage may import itself and those before it."""

ALLOWED = {stage: set(ORDER[: place + 1]) for place, stage in enumerate(ORDER)}
ALLOWED["blocks"] = {"errors", "blocks"}
ALLOWED["exporting"] = {*ORDER[: ORDER.index("evaluation") + 1], "exporting"}  # int8 is proven by its mean IoU
ALLOWED["serving"] = {*ALLOWED["exporting"], "serving"}
ALLOWED["cli"] = {*ORDER, "exporting", "serving", "cli"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["__init__"] = {*ORDER, "exporting"}

BLOCKS_NEED = {"torch", "jaxtyping"}
"""All that the blocks may import beside the standard library, so that they can be used in any network."""

HEAVY = {"torch", "torchvision", "timm", "accelerate", "matplotlib"}
"""What a command that only prints help must not load."""


def imports(source: str, package: str) -> Iterator[str]:
    """Full dotted names of all that `source`, a module in `package`, imports, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield from (".".join([*parents, *filter(None, [node.module]), alias.name]) for alias in node.names)


def violations(source: str, path: str) -> list[str]:
    """The imports in `source` that its place `path`, relative to the package, forbids."""
    parts = Path(path).with_suffix("").parts
    stage = parts[0]
    if stage not in ALLOWED:
        return [f"{path}: {stage!r} is no stage of the design"]
    faults = []
    for name in imports(source, ".".join(["asymseg", *parts[:-1]])):
        root, _, rest = name.partition(".")
        if root == "asymseg":
            target = rest.split(".")[0]
            if target not in ALLOWED[stage] | {"__version__"}:
                faults.append(f"{path}: {stage} must not import {name}")
        elif stage == "blocks" and root not in BLOCKS_NEED | sys.stdlib_module_names:
            faults.append(f"{path}: blocks must not import {name}")
    return faults


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after it has run `code`."""
    probe = f"{code}\nimport sys\nprint('modules:', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("modules: ").split())


def test_imports_point_one_way():
    assert len(SOURCES) > 5
    faults = [
        fault
        for path in SOURCES
        for fault in violations(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/annnet.py", "from asymseg.data.files import read_image"),
        ("model/annnet.py", "from asymseg import data"),
        ("model/annnet.py", "from ..data import files"),
        ("model/annnet.py", "def late():\n    import asymseg.training.train"),
        ("model/annnet.py", "from asymseg import load"),  # a way round through the public names
        ("training/train.py", "from asymseg.cli import main"),
        ("errors.py", "import asymseg.classes"),
        ("evaluation/metrics.py", "from asymseg.exporting.export import export"),
        ("training/train.py", "from asymseg.benchmarking.measure import peak_bytes"),
        ("blocks/apnb.py", "import numpy as np"),
        ("blocks/apnb.py", "from asymseg.config import Config"),
        ("blocks/apnb.py", "from torchvision import ops"),
        ("utils/misc.py", ""),
    ],
)
def test_a_wrong_import_is_caught(path, source):
    assert len(violations(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("blocks/apnb.py", "import math\nfrom torch import Tensor, nn\nfrom asymseg.blocks.attention import attend"),
        ("blocks/apnb.py", "from .attention import attend\nfrom ..errors import ConfigError"),
        ("training/train.py", "from asymseg.evaluation import metrics\nfrom asymseg import __version__\nimport numpy"),
        ("serving/serve.py", "from asymseg.prediction.loading import load"),
        ("cli/__init__.py", "def main():\n    from asymseg.training.train import train"),
    ],
)
def test_a_right_import_is_not(path, source):
    assert violations(source, path) == []


def test_the_probe_sees_what_is_loaded():
    assert "decimal" in loaded_by("import decimal")
    assert "decimal" not in loaded_by("import math")


def test_importing_the_package_loads_no_torch():
    assert not loaded_by("import asymseg") & {*HEAVY, "numpy", "pydantic"}


def test_what_runs_an_exported_file_loads_no_torch():
    modules = ("loading", "many.files", "video", "raster.recognising")
    assert not loaded_by("import " + ", ".join(f"asymseg.prediction.{module}" for module in modules)) & HEAVY


def test_help_loads_no_torch():
    code = """
import runpy, sys
sys.argv = ["asymseg", "--help"]
try:
    runpy.run_module("asymseg", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
assert "asymseg.cli" in sys.modules
"""
    assert not loaded_by(code) & HEAVY


def forbidden(source: str) -> list[str]:
    """What no module of the library may do, found in `source`."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            faults.append("postponed annotations: shapes would go unchecked")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "locals":
            faults.append("locals(): it shows whatever happens to lie about, passwords too")
        if isinstance(node, ast.keyword) and node.arg == "show_locals" and getattr(node.value, "value", None):
            faults.append("show_locals: it shows whatever happens to lie about, passwords too")
    return faults


def test_the_library_does_nothing_forbidden():
    faults = [f"{path}: {fault}" for path in SOURCES for fault in forbidden(path.read_text(encoding="utf-8"))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "source", ["from __future__ import annotations", "print(locals())", "install(show_locals=True)"]
)
def test_what_is_forbidden_is_caught(source):
    assert len(forbidden(source)) == 1


# Put together here, so that this file does not hold what it looks for.
FOLDERS = re.compile(r"(?<![\w.~-])/(" + "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers"]) + r")/\w")
HOSTS = [
    "pypi." + "org",
    "python" + "hosted.org",
    "download." + "pytorch.org",
    "registry." + "npmjs.org",
    "file:" + "//",
]


def private(text: str) -> list[str]:
    """Package registries and folders of somebody's own machine named in `text`."""
    return [match[0] for match in FOLDERS.finditer(text)] + [host for host in HOSTS if host in text]


def test_no_file_names_a_registry_or_a_private_folder():
    folders = ["src", "tests", "docs", "examples", "benchmarks", ".ci", ".github"]
    paths = [path for path in ROOT.glob("*") if path.is_file()]
    paths += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    paths = [path for path in paths if "__pycache__" not in path.parts]
    assert ROOT / "pyproject.toml" in paths
    faults = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in paths
        for fault in private(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not faults, "\n".join(faults)


def test_a_private_folder_is_caught():
    assert private("see /" + "home/ann/data") == ["/" + "home/a"]
    assert private("pip install -i https://" + "pypi." + "org/simple") == ["pypi." + "org"]
    assert private("images/" + "work/a.png, asymseg/" + "home/x") == []
