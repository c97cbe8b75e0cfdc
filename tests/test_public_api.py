"""The public names are a promise: one may come, none may go or move."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import asymseg

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "ANNNet",
    "AsymsegError",
    "CheckpointError",
    "Classes",
    "Config",
    "ConfigError",
    "DataError",
    "ExportError",
    "Predictor",
    "TrainingError",
    "__version__",
    "audit",
    "compare",
    "evaluate",
    "export",
    "export_mmseg",
    "fold",
    "from_pretrained",
    "load",
    "predict_raster",
    "predict_video",
    "push_to_hub",
    "train",
]


def test_the_list_is_frozen():
    assert sorted(asymseg.__all__) == PUBLIC


def test_a_name_is_not_listed_before_it_is_used_and_still_offered():
    seen = subprocess.run(
        [sys.executable, "-c", "import asymseg; print('Classes' in vars(asymseg), 'Classes' in dir(asymseg))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_name_is_the_thing_itself(name):
    thing = getattr(asymseg, name)
    assert callable(thing)  # a class or a function; a module of the same name would not be
    assert thing.__name__ == name
    assert thing.__module__.startswith("asymseg.")


def test_every_error_is_public():
    import asymseg.errors

    errors = {name for name, thing in vars(asymseg.errors).items() if isinstance(thing, type)}
    assert errors <= set(PUBLIC)
    assert all(issubclass(getattr(asymseg, name), asymseg.AsymsegError) for name in errors)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ANNet'"):
        _ = asymseg.ANNet


def test_the_version_is_that_of_the_installed_package():
    try:
        installed = metadata.version("asymseg")
    except metadata.PackageNotFoundError:
        assert asymseg.__version__ == "unknown"
        return
    assert asymseg.__version__ == installed
    assert installed == tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_types_are_shipped():
    assert (Path(asymseg.__file__).parent / "py.typed").is_file()
