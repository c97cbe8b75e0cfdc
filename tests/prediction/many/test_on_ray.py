"""A Ray cluster of this machine writes what one process writes, whatever dies in it.

The model is a file for onnxruntime, put together by hand, so that a process of the cluster is there in a second.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from asymseg.classes import Classes
from asymseg.errors import AsymsegError, ConfigError
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.loading import Model, load, made_with
from asymseg.prediction.many.files import Wanted, predict_files
from asymseg.prediction.many.on_ray import _TRIES, _Process, _Tries, predict_on_ray
from asymseg.prediction.many.planning import plan_files
from asymseg.prediction.many.stores import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")  # Ray's, of its own settings

INFO = ModelInfo(Classes(("red", "green", "blue")), (0.0,) * 3, (1.0,) * 3)
IMAGES = 24
DYING = """
import os, pathlib, signal
from asymseg.prediction.many import files

read = files.read_pixels

def dying(source, channels):
    once = pathlib.Path(source.place.removeprefix("local://")).with_suffix(".once")
    if once.exists():
        once.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return read(source, channels)

files.read_pixels = dying
"""
"""What each process of the cluster runs first: an image then kills the process that reads it for the first time."""


def write_model(path: Path) -> None:
    """A network that says of each pixel which of its three colours is the strongest."""
    weights = numpy_helper.from_array(10 * np.eye(3, dtype=np.float32)[:, :, None, None], "w")
    sides = ["b", 3, "h", "w"]
    given, gives = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in ("image", "logits"))
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w"], ["logits"])], "x", [given], [gives], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    signature = {"output": "logits", "from_bytes": False, "size": None, "half": False}
    content = INFO.describe({"align_corners": False}) | {"signature": signature}
    helper.set_model_props(model, {"asymseg": json.dumps(content)})
    onnx.save(model, path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and images of which one cannot be read."""
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "model.onnx")
    (folder / "photos" / "trip").mkdir(parents=True)
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / ("trip" if number % 3 else ".") / f"{number:02}.png")
    (folder / "photos" / "damaged.png").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two processes at most, in which images may kill."""
    ray = pytest.importorskip("ray", reason="a cluster needs the extra ray")
    folder = tmp_path_factory.mktemp("first")
    (folder / "sitecustomize.py").write_text(DYING)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        environment.setenv("RAY_AUTH_TOKEN", "0" * 64)
        ray.init(
            "local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


def model_of(world: Path) -> Model:
    return Model(str(world / "model.onnx"), Seeing(), "cpu")


def results(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".predictions" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.usefixtures("cluster")
def test_a_cluster_writes_what_one_process_writes_and_outlives_a_death(world: Path, tmp_path: Path) -> None:
    photos, model = world / "photos", model_of(world)
    expected = predict_files(load(model.source, "cpu"), photos, tmp_path / "local", probabilities=True)
    assert (len(expected.written), len(expected.failures)) == (IMAGES, 1)
    fatal = photos / "trip" / "01.once"
    fatal.touch()
    told: list[tuple[int, int]] = []
    outcome = predict_on_ray(
        model,
        f"local://{photos}",  # read as from a store
        tmp_path / "ray",
        Wanted(probabilities=True),
        progress=lambda done, total: told.append((done, total)),
    )
    assert not fatal.exists()
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert len(results(tmp_path / "ray")) == 3 * IMAGES
    assert [path.name for path in map(Path, outcome.written)] == [path.name for path in map(Path, expected.written)]
    assert outcome.failures == (f"local://{photos}/damaged.png{expected.failures[0].partition('damaged.png')[2]}",)
    assert told[-1] == (IMAGES + 1, IMAGES + 1)

    (tmp_path / "ray" / "00.png").unlink()
    made = made_with(model)
    again = predict_files(  # the manifest is that of any engine
        load(model.source, "cpu"), f"local://{photos}", tmp_path / "ray", probabilities=True, made_with=made
    )
    assert (again.before, again.written, again.failures) == (IMAGES, (), outcome.failures)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_room_is_said(world: Path, tmp_path: Path) -> None:
    for workers in (0, 3):
        with pytest.raises(ConfigError, match=f"workers = {workers}, and the cluster has room for 1 to 2, one"):
            predict_on_ray(model_of(world), world / "photos", tmp_path / "out", Wanted(), workers=workers)


def test_without_ray_it_is_said_how_to_get_it(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AsymsegError, match=r'Ray is missing; pip install "asymseg\[ray\]"'):
        predict_on_ray(model_of(world), world / "photos", tmp_path / "out", Wanted())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_nobody_listens(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setitem(sys.modules, "ray", absent_cluster())
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"Ray at {address} cannot be reached .*refused.*; mend RAY_ADDRESS"):
        predict_on_ray(model_of(world), world / "photos", tmp_path / "out", Wanted())


def absent_cluster() -> SimpleNamespace:
    """Ray as far as it is needed where nobody listens."""
    exceptions = SimpleNamespace(AuthenticationError=PermissionError)
    return SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None, exceptions=exceptions)


@pytest.fixture
def process(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Process:
    """What a process of the cluster holds, in this one."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda given: given))
    files = {"model.onnx": (world / "model.onnx").read_bytes()}
    plan = plan_files(world / "photos", tmp_path / "out")
    tries = SimpleNamespace(begin=SimpleNamespace(remote=_Tries().begin))
    return _Process(files, model_of(world), plan, Wanted(overlay=False), tries)


def block(number: int, *names: str) -> dict[str, list[object]]:
    return {"block": [number], "names": [json.dumps(names)]}


def test_a_block_that_was_begun_too_often_is_left(process: _Process, tmp_path: Path) -> None:
    """Who began it before is dead: each of them would have said what became of it."""
    for _ in range(_TRIES):
        said = process(block(7, "00.png", "damaged.png"))
        assert said["block"] == [7]
        assert list(json.loads(said["failures"][0])) == ["damaged.png"]
    assert process(block(7, "00.png")) == {"block": [7], "failures": [""], "refused": [""], "bug": [""]}
    assert process(block(8, "03.png"))["failures"] == ["{}"]
    assert sorted(results(tmp_path / "out")) == ["00.png", "03.png"]
    done = Store(str(tmp_path / "out")).names(".predictions/done")
    assert sum(Store(str(tmp_path / "out")).content(name).count(b"\n") for name in done) == 3


def test_what_ends_a_run_is_told_apart(process: _Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").write_bytes(b"in the way")
    said = process(block(0, "00.png"))
    assert (said["failures"], said["bug"]) == ([""], [""])
    assert str(tmp_path / "out") in str(said["refused"][0])
    monkeypatch.setattr(process, "look", lambda pixels: 1 // 0)
    said = process(block(1, "00.png"))
    assert (said["failures"], said["refused"]) == ([""], [""])
    assert "ZeroDivisionError" in str(said["bug"][0])
