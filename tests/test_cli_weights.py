"""Weights from elsewhere on the command line: import, verify, published names, and what is refused."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import foreign_checkpoints as foreign
import numpy as np
import pytest
import torch
from file_server import serving
from PIL import Image

import asymseg
from asymseg.cli import main
from asymseg.model import download
from asymseg.model.checkpoint import load_model
from asymseg.model.zoo import ZOO

Run = Callable[..., tuple[int, str]]

NAME = "ann-r50-cityscapes-512x1024-80k"
CITYSCAPES = [f"kind {number}" for number in range(19)]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; give its exit code and all it printed, in one line per blank."""

    def running(*arguments: str | Path) -> tuple[int, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return running


def checkpoint(classes: int = 19, shift: np.ndarray | None = None, **meta: object) -> bytes:
    """A small checkpoint as mmsegmentation 0.x writes one, with `shift` taken from the classifier's bias."""
    file = io.BytesIO()
    state = foreign.filled(foreign.mmseg_ann(replace(foreign.SMALL, classes=classes)))
    if shift is not None:
        state["decode_head.conv_seg.bias"] -= torch.from_numpy(shift)
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}}}, file)
    return file.getvalue()


def in_balance(path: Path, image: Path, classes: int, **meta: object) -> None:
    """Write a checkpoint that finds several classes in the image, where random weights favour one everywhere."""
    path.write_bytes(checkpoint(classes))
    logits = np.log(asymseg.load(path, "cpu")(image).probabilities)
    path.write_bytes(checkpoint(classes, logits.mean(axis=(1, 2)), **meta))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Path:
    """mmsegmentation's, of four classes that it names."""
    path = tmp_path_factory.mktemp("file") / "anything.bin"
    in_balance(path, image, 4, CLASSES=("a", "b", "c", "d"), PALETTE=[[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 1]])
    return path


def test_import_writes_a_model_and_says_what_it_is(run: Run, file: Path, image: Path, tmp_path: Path) -> None:
    code, output = run("import", file, "-o", tmp_path / "model", "--verify", image)
    assert code == 0, output
    network, info = load_model(tmp_path / "model")
    assert info.classes.names == ("a", "b", "c", "d")
    assert info.classes.palette[1] == (4, 5, 6)
    assert "from a checkpoint of mmsegmentation" in output
    assert "fusion afnb, context apnb, output stride 8" in output
    assert "4 classes, RGB, align_corners false" in output
    assert "left out: optimizer: state of the optimiser" in output
    assert f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters" in output


def test_verify_says_what_the_network_says(run: Run, file: Path, image: Path, tmp_path: Path) -> None:
    _, output = run("import", file, "-o", tmp_path / "model", "--verify", image)
    result = asymseg.load(tmp_path / "model", "cpu")(image)
    assert "40 x 56 pixels" in output
    counts = {number: int((result.mask == number).sum()) for number in range(4)}
    assert len([count for count in counts.values() if count]) > 1
    for number, name in enumerate("abcd"):
        if counts[number]:
            sure = result.probabilities[number][result.mask == number].mean()
            assert f"{name} {counts[number] / (40 * 56):.2%} {sure:.4f}" in output


def test_a_checkpoint_needs_no_import(run: Run, file: Path, image: Path, tmp_path: Path) -> None:
    assert run("import", file, "-o", tmp_path / "model")[0] == 0
    assert run("predict", tmp_path / "model", image, "-o", tmp_path / "a.png", "--no-overlay")[0] == 0
    assert run("predict", file, image, "-o", tmp_path / "b.png", "--no-overlay")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_evaluate_takes_a_checkpoint(run: Run, file: Path, image: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "val").mkdir(parents=True)
    Image.open(image).save(tmp_path / "data" / "images" / "val" / "x.png")
    mask = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56) % 4
    Image.fromarray(mask).save(tmp_path / "data" / "masks" / "val" / "x.png")
    code, output = run("evaluate", file, "data", "--no-gallery")
    assert code == 0, output
    metrics = json.loads((tmp_path / "evaluation-anything-val" / "metrics.json").read_text())
    said = asymseg.load(file, "cpu")(image).mask
    assert metrics["pixel_accuracy"] == pytest.approx((said == mask).mean())


def test_classes_and_corners_can_be_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bare.pth").write_bytes(checkpoint(4))
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["sky", "road", "car", "tree"]}))
    told = ("--classes", tmp_path / "classes.json", "--align_corners")
    code, output = run("import", tmp_path / "bare.pth", "-o", tmp_path / "model", *told)
    assert code == 0, output
    network, info = load_model(tmp_path / "model")
    assert info.classes.names == ("sky", "road", "car", "tree")
    assert network.align_corners
    assert "align_corners true" in output
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["sky", "road"]}))
    code, output = run("import", tmp_path / "bare.pth", "-o", tmp_path / "other", *told)
    assert code == 2
    assert "2 classes; the network of" in output
    assert not (tmp_path / "other").exists()


def test_nothing_but_a_model_is_replaced(run: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").touch()
    code, output = run("import", file, "-o", tmp_path / "photos")
    assert code == 2
    assert "holds something else than a model; choose another folder for -o" in output
    assert (tmp_path / "photos" / "mine.jpg").exists()
    assert run("import", file, "-o", tmp_path / "model")[0] == 0
    assert run("import", file, "-o", tmp_path / "model")[0] == 0


class Hostile:
    def __reduce__(self):
        return eval, ("open('ran', 'w').close()",)


@pytest.mark.parametrize("command", ["import", "predict"])
def test_a_file_that_would_run_code_is_refused(run: Run, image: Path, tmp_path: Path, monkeypatch, command) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pdparams").write_bytes(pickle.dumps({"weight": Hostile()}, protocol=2))
    arguments = (image, "-o", "out") if command == "predict" else ("-o", "out")
    code, output = run(command, "weights.pdparams", *arguments)
    assert code == 2
    assert output.startswith("asymseg: weights.pdparams: ")
    assert "eval" in output
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_published_weights_by_name_and_offline_afterwards(run: Run, image: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "ann.pth"
    in_balance(path, image, 19, CLASSES=CITYSCAPES)
    content = path.read_bytes()
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("ASYMSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setitem(ZOO, NAME, replace(ZOO[NAME], sha256=hashlib.sha256(content).hexdigest()[:8]))
    with serving(content) as server:
        monkeypatch.setenv("ASYMSEG_MIRROR", server.address)
        server.break_off_after = [10_000]
        code, output = run("predict", NAME, image, "-o", tmp_path / "first.png", "--no-overlay")
        assert code == 0, output
        assert f"fetching {NAME} (about 185 MB), once" in output
    code, output = run("predict", NAME, image, "-o", tmp_path / "again.png", "--no-overlay")
    assert code == 0, output
    assert "fetching" not in output
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    by_file = asymseg.load(path, "cpu")(image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "first.png")), by_file.mask)
    assert len(np.unique(by_file.mask)) > 1
    assert asymseg.load(NAME, "cpu").info.classes.names == tuple(CITYSCAPES)
    _, output = run("models")
    assert output.count("(fetched)") == 1


def test_models_lists_them_all(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ASYMSEG_HOME", str(tmp_path / "home"))
    code, output = run("models")
    assert code == 0
    assert all(name in output for name in ZOO)
    assert f"{NAME} Cityscapes ResNet-50 v1c 512x1024 77.34 78.65 185 Apache-2.0 mmsegmentation" in output
    assert str(tmp_path / "home") in output
    assert "fetched)" not in output


def test_a_name_that_is_almost_one(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("predict", "ann-r50-cityscape-512x1024-80k", "x.png", "-o", "out")
    assert code == 2
    assert f"close: {NAME}" in output
