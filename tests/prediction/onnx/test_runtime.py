"""An exported file as a predictor: what the torch predictor gives of the same network, without torch."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from steadiness import growth
from torch import nn
from torch.nn import functional as F

import asymseg
from asymseg.classes import Classes
from asymseg.errors import CheckpointError, ConfigError, DataError, ExportError
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.onnx.maps import best_classes, rescaled, resized
from asymseg.prediction.onnx.on_torch import on_torch
from asymseg.prediction.onnx.runtime import OnnxPredictor
from asymseg.prediction.predict import Predictor
from asymseg.prediction.result import Result

INFO = ModelInfo(Classes(("red", "green", "blue", "grey")), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))


class Small(nn.Module):
    """Four classes from the neighbourhood of each pixel, with logits far enough apart to matter."""

    def __init__(self, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.layer.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


def write(path: Path, network: Small, info: ModelInfo = INFO, **signature: Any) -> Path:
    """The network as a file, put together by hand so that a test takes no second."""
    signature = {"output": "logits", "from_bytes": False, "size": None, "half": False} | signature
    mean, std = (255 * np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (info.mean, info.std))
    constants = {"w": network.layer.weight.detach().numpy(), "b": network.layer.bias.detach().numpy()}
    nodes, x = [], "image"
    if signature["from_bytes"]:
        order = np.array([2, 1, 0] if info.channel_order == "BGR" else [0, 1, 2])
        constants |= {"mean": mean, "std": std, "order": order}
        nodes += [helper.make_node("Gather", ["image", "order"], ["rgb"], axis=1)]
        nodes += [helper.make_node("Cast", ["rgb"], ["numbers"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Sub", ["numbers", "mean"], ["centred"])]
        nodes += [helper.make_node("Div", ["centred", "std"], ["normal"])]
        x = "normal"
    nodes.append(helper.make_node("Conv", [x, "w", "b"], ["logits"], pads=[1, 1, 1, 1]))
    if signature["output"] == "probabilities":
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    if signature["output"] == "class_map":
        nodes.append(helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["ids"], ["class_map"], to=TensorProto.UINT8))
    kind = TensorProto.UINT8 if signature["from_bytes"] else TensorProto.FLOAT
    size = signature["size"] or ("h", "w")
    is_map = signature["output"] == "class_map"
    given = helper.make_tensor_value_info("image", kind, ["b", 3, *size])
    gives = helper.make_tensor_value_info(
        signature["output"], TensorProto.UINT8 if is_map else TensorProto.FLOAT, ["b", *(() if is_map else (4,)), *size]
    )
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "small", [given], [gives], weights), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 10
    content = info.describe({"align_corners": network.align_corners}) | {"signature": signature, "parameters": 112}
    helper.set_model_props(model, {"asymseg": json.dumps(content)})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network as files of several kinds."""
    folder = tmp_path_factory.mktemp("files")
    write(folder / "logits.onnx", Small())
    write(folder / "aligned.onnx", Small(align_corners=True))
    for name, signature in {
        "bytes": {"from_bytes": True},
        "probabilities": {"output": "probabilities"},
        "class_map": {"output": "class_map"},
        "fixed": {"size": (20, 30)},
    }.items():
        write(folder / f"{name}.onnx", Small(), **signature)
    return folder


def picture(height: int = 37, width: int = 50, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(given: Result, expected: Result) -> None:
    """Equal probabilities, and equal classes but where two are as good."""
    shares = expected.probabilities
    np.testing.assert_allclose(given.probabilities, shares, atol=2e-5)
    first, second = np.sort(shares, axis=0)[-2:][::-1]
    sure = first - second > 1e-4
    np.testing.assert_array_equal(given.mask[sure], expected.mask[sure])
    np.testing.assert_array_equal(given.image, expected.image)


seeings = st.builds(
    lambda **given: given,
    mode=st.sampled_from(["whole", "slide"]),
    window=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    weighting=st.sampled_from(["flat", "tapered"]),
    scales=st.lists(st.sampled_from([0.3, 0.5, 0.75, 1.0, 1.5, 2.0]), min_size=1, max_size=3).map(tuple),
    flip=st.booleans(),
    average=st.sampled_from(["probabilities", "logits", "mixed"]),
)


@pytest.mark.parametrize("kind", ["logits", "aligned", "probabilities"])
@given(height=st.integers(1, 45), width=st.integers(5, 45), seeing=seeings, floats=st.booleans())  # see below
@settings(max_examples=15, deadline=None, derandomize=True)
def test_any_way_of_seeing_is_the_torch_predictors(files, kind, height, width, seeing, floats):
    image = picture(height, width)
    image = image.astype(np.float32) / 255 if floats else image
    info = replace(INFO, seeing=Seeing(**seeing))
    predictor = OnnxPredictor(files / f"{kind}.onnx", "cpu")
    predictor.info = info
    expected = Predictor(Small(align_corners=kind == "aligned"), info, "cpu")(image)
    same(predictor(image), expected)
    same(predictor(image, keep=False), expected)


def by_hand(length: int, target: int) -> np.ndarray:
    """The weights of an antialiased bilinear resize: a tent as wide as a target pixel, at least two source pixels."""
    width = max(length / target, 1.0)
    middles = (np.arange(target) + 0.5) * (length / target)
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - middles[:, None]) / width)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(1, 1), (37, 1), (9, 11), (50, 20), (100, 75)])
def test_images_are_resized_by_the_equation(size):
    """Of a single column torch's own antialias gives something else, so that is not compared with torch above."""
    images = np.random.default_rng(0).normal(size=(2, 3, 37, 21)).astype(np.float32)
    expected = np.einsum("ij,bcjk,lk->bcil", by_hand(37, size[0]), images, by_hand(21, size[1]))
    np.testing.assert_allclose(rescaled(images, size), expected, atol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (37, 1), (9, 11), (50, 20), (100, 75)])
def test_maps_are_resized_as_by_torch(size, align_corners):
    maps = np.random.default_rng(0).normal(size=(2, 3, 37, 21)).astype(np.float32)
    expected = nn.functional.interpolate(torch.from_numpy(maps), size, mode="bilinear", align_corners=align_corners)
    np.testing.assert_allclose(resized(maps, size, align_corners), expected.numpy(), atol=1e-5)


def test_the_first_of_equal_classes_is_taken():
    scores = np.random.default_rng(0).integers(0, 3, (5, 9, 8)).astype(np.float32)
    np.testing.assert_array_equal(best_classes(scores), scores.argmax(axis=0))


def test_a_file_that_takes_bytes_says_the_same(files):
    predictor, expected = OnnxPredictor(files / "bytes.onnx", "cpu"), Predictor(Small(), INFO, "cpu")
    same(predictor(picture()), expected(picture()))
    slid = {"mode": "slide", "window": (16, 20), "flip": True, "average": "logits"}
    same(predictor.seeing(**slid)(picture()), expected.seeing(**slid)(picture()))


def test_channels_come_in_the_models_order(tmp_path):
    info = replace(INFO, channel_order="BGR")
    for name, from_bytes in (("numbers.onnx", False), ("bytes.onnx", True)):
        predictor = OnnxPredictor(write(tmp_path / name, Small(), info, from_bytes=from_bytes), "cpu")
        same(predictor(picture()), Predictor(Small(), info, "cpu")(picture()))
        same(on_torch(predictor)(picture()), Predictor(Small(), info, "cpu")(picture()))


def test_class_maps_are_all_that_such_a_file_gives(files):
    predictor = OnnxPredictor(files / "class_map.onnx", "cpu")
    result = predictor(picture())
    np.testing.assert_array_equal(result.mask, Predictor(Small(), INFO, "cpu")(picture()).mask)
    with pytest.raises(ConfigError, match="--output logits"):
        _ = result.probabilities
    for seeing in ({"flip": True}, {"scales": (0.5,)}, {"mode": "slide", "window": (9, 9)}):
        with pytest.raises(ConfigError, match="cannot be joined"):
            predictor.seeing(**seeing)(picture())
    with pytest.raises(ConfigError, match="no scores"):
        on_torch(predictor)


def test_a_file_of_one_size_takes_windows_of_it(files):
    predictor = OnnxPredictor(files / "fixed.onnx", "cpu")
    with pytest.raises(ConfigError, match="takes 20x30 pixels alone, and would be shown 37x50; use --mode slide --win"):
        predictor(picture())
    slid = {"mode": "slide", "window": (20, 30)}
    same(predictor.seeing(**slid)(picture()), Predictor(Small(), INFO, "cpu").seeing(**slid)(picture()))
    with pytest.raises(ConfigError, match="would be shown 19x30"):
        predictor.seeing(**slid)(picture(19, 50))


def test_other_numbers_than_bytes_are_refused_by_a_file_that_takes_bytes(files):
    predictor = OnnxPredictor(files / "bytes.onnx", "cpu")
    for ask in (predictor, on_torch(predictor)):
        with pytest.raises(DataError, match="8 bit"):
            ask(picture().astype(np.float32) / 254)


def test_a_file_that_takes_bytes_is_given_the_nearest_at_another_scale(files, monkeypatch):
    run, given = OnnxPredictor._run, []
    monkeypatch.setattr(OnnxPredictor, "_run", lambda self, x: run(self, given.append(x) or x))
    predictor = OnnxPredictor(files / "bytes.onnx", "cpu").seeing(scales=(0.6, 1.5))
    for ask in (predictor, on_torch(predictor)):
        ask(picture())
    image = torch.from_numpy(picture()).permute(2, 0, 1)[None].float()
    for size, *shown in zip(((22, 30), (56, 75)), given[:2], given[2:], strict=True):
        expected = F.interpolate(image, size, mode="bilinear", antialias=True).numpy()
        for bytes_shown in shown:
            assert bytes_shown.dtype == np.uint8
            assert np.abs(bytes_shown - expected).max() < 0.501


def test_a_mask_travels_without_its_file(files):
    result = OnnxPredictor(files / "class_map.onnx", "cpu")(picture())
    sent = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(sent.mask, result.mask)
    with pytest.raises(ConfigError, match="apart from its network"):
        _ = sent.probabilities


@pytest.mark.parametrize("wrong", [{"output": "masks"}, {"from_bytes": "no"}, {"size": "ab"}, {"size": [3]}])
def test_a_file_that_says_nonsense_of_itself_is_refused(tmp_path, wrong):
    path = write(tmp_path / "model.onnx", Small())
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "asymseg":
            content = json.loads(entry.value)
            entry.value = json.dumps(content | {"signature": content["signature"] | wrong})
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="does not say what it takes and gives"):
        OnnxPredictor(path, "cpu")


def test_several_are_as_one_by_one(files):
    predictor = OnnxPredictor(files / "logits.onnx", "cpu").seeing(flip=True)
    floats = picture(seed=3).astype(np.float32) / 255
    images = [picture(seed=1), picture(20, 30), picture(seed=2), floats, picture(50, 37)]
    for result, image in zip(predictor.several(images), images, strict=True):
        same(result, predictor(image))
    assert predictor.several([]) == []


def test_a_result_tells_of_one_pixel_and_travels(files):
    for seeing in ({}, {"flip": True}):
        result = OnnxPredictor(files / "logits.onnx", "cpu").seeing(**seeing)(picture())
        at = result.probabilities_at(30, 41)
        sent = pickle.loads(pickle.dumps(result))
        np.testing.assert_allclose(at, result.probabilities[:, 30, 41], atol=1e-6)
        np.testing.assert_array_equal(sent.probabilities, result.probabilities)


def test_class_map_and_confidence(files):
    predictor, whole = OnnxPredictor(files / "logits.onnx", "cpu"), Predictor(Small(), INFO, "cpu")(picture())
    mask, sure = predictor.class_map_and_confidence(picture())
    np.testing.assert_array_equal(mask, predictor.class_map(picture()))
    np.testing.assert_allclose(sure, whole.probabilities.max(axis=0), atol=1e-5)


def test_the_file_as_a_network_says_the_same_to_all_that_takes_tensors(files):
    predictor = OnnxPredictor(files / "logits.onnx", "cpu")
    wrapped, image = on_torch(predictor), torch.from_numpy(picture()).permute(2, 0, 1)
    expected = Predictor(Small(), INFO, "cpu").class_map_and_confidence(image)
    for said, wanted in zip(wrapped.class_map_and_confidence(image), expected, strict=True):
        torch.testing.assert_close(said, wanted, rtol=0, atol=1e-5)
    assert wrapped.parameters == predictor.parameters == 112
    assert on_torch(wrapped) is wrapped


@pytest.mark.parametrize("kind", ["logits", "bytes"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_a_tensor_is_taken_as_the_torch_predictor_takes_it(files, kind, dtype):
    image = torch.from_numpy(picture()).permute(2, 0, 1)
    image = image if dtype == torch.uint8 else (image / 255).to(dtype)
    predictor = OnnxPredictor(files / f"{kind}.onnx", "cpu")
    if kind == "bytes" and dtype != torch.uint8:
        with pytest.raises(DataError, match="images of 8 bit alone"):
            predictor(image)
        return
    expected = Predictor(Small(), INFO, "cpu")(image)
    same(predictor(image), expected)
    same(predictor.several([image])[0], expected)


def test_a_batch_is_no_image(files):
    with pytest.raises(DataError, match=r"expected a tensor C H W, got the shape \(1, 3, 20, 30\)"):
        OnnxPredictor(files / "logits.onnx", "cpu")(torch.zeros(1, 3, 20, 30))


@pytest.mark.parametrize("kind", ["logits", "bytes"])
def test_the_network_of_a_file_gives_the_logits_of_normalised_images(files, kind):
    stack = torch.from_numpy(np.stack([picture(seed=1), picture(seed=2)])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (INFO.mean, INFO.std))
    normalised = (stack / 255 - mean) / std
    said = asymseg.load(files / f"{kind}.onnx").network(normalised)
    torch.testing.assert_close(said, Small()(normalised).detach(), rtol=0, atol=1e-4)


def test_a_file_of_class_maps_has_no_network(files):
    with pytest.raises(ConfigError, match=r"class_map.onnx: gives class maps and no scores"):
        _ = OnnxPredictor(files / "class_map.onnx", "cpu").network


def test_what_no_file_can_tell(files):
    with pytest.raises(ConfigError, match=r"logits.onnx: the insides of its blocks are not in the file"):
        OnnxPredictor(files / "logits.onnx", "cpu")(picture()).attention(1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"compile": True}, "leave them out"), ({"precision": "bf16"}, "leave them out"), ({"fold": False}, "leave them")],
)
def test_settings_without_effect_are_refused(files, settings, message):
    with pytest.raises(ConfigError, match=message):
        asymseg.load(files / "logits.onnx", **settings)


def test_cuda_that_is_there_in_name_alone_is_refused(files, monkeypatch):
    """onnxruntime falls back to the CPU, and says so in its log alone, where CUDA's own libraries are missing."""
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: names)
    start = onnxruntime.InferenceSession
    monkeypatch.setattr(
        "onnxruntime.InferenceSession", lambda path, options, providers: start(path, options, providers=providers[-1:])
    )
    with pytest.raises(ConfigError, match="'cuda' cannot be used here: onnxruntime could not load"):
        asymseg.load(files / "logits.onnx", "cuda")
    assert asymseg.load(files / "logits.onnx", "auto").device == "cpu"


@pytest.mark.parametrize(("device", "message"), [("mps", "none that ONNX"), ("cuda", "no CUDA"), ("cuda:1", "none")])
def test_devices_that_are_not_there(files, device, message):
    with pytest.raises(ConfigError, match=message):
        asymseg.load(files / "logits.onnx", device)


def test_files_that_cannot_be_used_are_told_in_a_line(files, tmp_path):
    def fault(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            asymseg.load(path)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "no such file" in fault(tmp_path / "a.onnx")
    content = (files / "logits.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 3])
    assert "not readable by onnxruntime" in fault(tmp_path / "cut.onnx")
    model = onnx.load(files / "logits.onnx")
    for text, message in (
        ("{", "not readable as JSON"),
        ('{"format": "else"}', "not the description"),
        (json.dumps(INFO.describe({})), "what it takes and gives"),
    ):
        helper.set_model_props(model, {"asymseg": text})
        onnx.save(model, tmp_path / "told.onnx")
        assert message in fault(tmp_path / "told.onnx")
    helper.set_model_props(model, {})
    onnx.save(model, tmp_path / "bare.onnx")
    assert "asymseg did not write" in fault(tmp_path / "bare.onnx")


@pytest.mark.parametrize("kind", ["logits", "class_map"])
def test_memory_that_runs_out_is_told_in_a_line(files, kind):
    class Full:
        def run(self, *_: Any) -> None:
            raise Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation")

    predictor = OnnxPredictor(files / f"{kind}.onnx", "cpu")
    predictor.session = Full()
    with pytest.raises(ConfigError, match="4 classes at 37x50 pixels do not fit into memory; use --mode slide"):
        predictor(picture())


def test_a_missing_onnxruntime_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"asymseg\[export\]"):
        asymseg.load(files / "logits.onnx")


def test_threads_files_and_memory_stay_over_many_predictions(files, no_shape_checks):
    predictor = OnnxPredictor(files / "logits.onnx", "cpu")

    def predict(number: int) -> None:
        predictor(picture(50 + number % 9, 90)).overlay()

    assert growth(predict, warm=50, times=200) < 60_000  # one image is 13_500 bytes


def test_onnxruntime_is_kept_from_telling_its_makers(files, tmp_path):
    """Left to itself it makes a number for this machine in the user's folder as soon as it is loaded."""
    code = f"import asymseg; asymseg.load({str(files / 'logits.onnx')!r})"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    environment |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images whose labels the network gets right for the most part."""
    folder, predictor = tmp_path_factory.mktemp("data"), Predictor(Small(), INFO, "cpu")
    for kind in ("images", "masks"):
        (folder / kind / "val").mkdir(parents=True)
    for seed in range(5):
        mask = predictor(picture(seed=seed)).mask
        mask[: 5 + seed] = seed % 4
        Image.fromarray(picture(seed=seed)).save(folder / "images" / "val" / f"{seed}.png")
        Image.fromarray(mask).save(folder / "masks" / "val" / f"{seed}.png")
    return folder


@pytest.mark.parametrize("kind", ["logits", "bytes", "probabilities"])
def test_a_file_is_measured_as_its_network_is(files, data, kind):
    given = asymseg.evaluate(files / f"{kind}.onnx", data, flip=True, replicates=0)
    expected = asymseg.evaluate(Predictor(Small(), INFO, "cpu"), data, flip=True, replicates=0)
    assert 0.3 < given.scores.miou < 1
    torch.testing.assert_close(given.matrix, expected.matrix)
    sure = [result.calibration.confidence.sum() for result in (given, expected)]
    assert sure[0] == pytest.approx(sure[1], rel=1e-5)


def test_a_file_is_compared_with_its_network(files, data):
    result = asymseg.compare(files / "logits.onnx", Predictor(Small(), INFO, "cpu"), data)
    assert result.miou[0] == result.miou[1]


def test_a_raster_is_predicted_as_by_the_network(files, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    form = {"driver": "GTiff", "count": 3, "height": 70, "width": 90, "dtype": "uint8", "crs": "EPSG:32633"}
    place = rasterio.Affine(1, 0, 500_000, 0, -1, 5_000_000)
    with rasterio.open(tmp_path / "a.tif", "w", transform=place, **form) as raster:
        raster.write(picture(70, 90).transpose(2, 0, 1))
    written = []
    for name, predictor in (("file", OnnxPredictor(files / "logits.onnx")), ("net", Predictor(Small(), INFO, "cpu"))):
        outcome = asymseg.predict_raster(predictor, tmp_path / "a.tif", tmp_path / f"{name}.tif", tile=32)
        with rasterio.open(outcome.path) as raster:
            written.append(raster.read(1))
    np.testing.assert_array_equal(*written)


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "accelerate"}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
sys.argv = ["asymseg", *sys.argv[1:]]
from asymseg.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def test_the_command_line_predicts_where_there_is_no_torch(files, tmp_path):
    np.save(tmp_path / "a.npy", picture())
    command = ["predict", str(files / "logits.onnx"), str(tmp_path / "a.npy"), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *command, "--probabilities"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "1 predicted, 0 failed" in done.stdout + done.stderr
    expected = Predictor(Small(), INFO, "cpu")(picture())
    shares = np.load(tmp_path / "out" / "a_probabilities.npz")["probabilities"]
    np.testing.assert_allclose(shares, expected.probabilities, atol=1e-3)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a_overlay.jpg", "a_probabilities.npz"}
