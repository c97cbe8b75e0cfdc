"""Views joined some rows at a time: as the plain sum of full-size maps, in less memory, and kept for later."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from asymseg.classes import Classes
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.folded import FoldedANNNet
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.loading import load
from asymseg.prediction.predict import Predictor

INFO = ModelInfo(Classes(("red", "green", "blue")), (0.4,) * 3, (0.3,) * 3)
SLIDE = {"mode": "slide", "window": (24, 32)}


def seen(info: ModelInfo = INFO, **settings) -> ModelInfo:
    return replace(info, seeing=Seeing(**settings))


def living(seed: int = 0, **settings) -> ANNNet:
    """A small network whose BatchNorms and contexts matter."""
    torch.manual_seed(seed)
    narrow = {"stages": (1, 2), "key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0}
    network = ANNNet(3, "resnet10t", **narrow | settings)
    nn.init.normal_(network.fusion.output.weight)
    nn.init.normal_(network.context.output.weight)
    network(torch.rand(4, 3, 32, 32))
    return network.eval()


def picture(height: int = 37, width: int = 50) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plainly(network: nn.Module, image: np.ndarray, info: ModelInfo) -> torch.Tensor:
    """Probabilities with every map at full size: each view's logits, brought to the image's size, turned back."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(info.mean)[:, None, None]) / torch.tensor(info.std)[:, None, None]
    size, shares = pixels.shape[2:], []
    for scale in info.seeing.scales:
        side = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        x = pixels if side == size else nn.functional.interpolate(pixels, side, mode="bilinear", antialias=True)
        for mirrored in (False, True) if info.seeing.flip else (False,):
            with torch.no_grad():
                logits = network(x.flip(3) if mirrored else x)
            logits = logits.flip(3) if mirrored else logits
            if side != size:
                align = network.align_corners
                logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=align)
            shares.append(logits[0].softmax(dim=0))
    return torch.stack(shares).mean(dim=0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("fold", [True, False])
def test_views_as_full_size_maps(fold, align_corners):
    network = living(align_corners=align_corners)
    predictor = Predictor(living(align_corners=align_corners), INFO, "cpu", fold=fold)
    for settings in ({}, {"flip": True}, {"scales": (0.5, 1.0, 1.5), "flip": True}, {"scales": (0.4,)}):
        predictor.info = seen(**settings)
        for height, width in [(1, 1), (37, 50)]:
            image = picture(height, width)
            expected, result = plainly(network, image, predictor.info), predictor(image)
            np.testing.assert_allclose(result.probabilities, expected.numpy(), atol=1e-5)
            first, second = expected.topk(2, dim=0).values
            sure = (first - second > 1e-4).numpy()
            np.testing.assert_array_equal(result.mask[sure], expected.argmax(dim=0).numpy()[sure])


class Largest(TorchDispatchMode):
    """The most numbers that any tensor had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


class Coarse(nn.Module):
    """150 classes at stride 8."""

    def forward(self, images):
        maps = nn.functional.avg_pool2d(images, 8, ceil_mode=True)
        return maps.mean(dim=1, keepdim=True) * torch.linspace(-1, 1, 150)[:, None, None]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flip": True},
        {"scales": (1.0, 0.5)},
        {"scales": (0.5, 2.0)},
        {"scales": (2.0,), "average": "logits"},
        {"mode": "slide", "window": (100, 100), "scales": (0.5, 2.0)},
    ],
)
def test_a_mask_needs_no_full_map_of_logits(settings):
    names = tuple(map(str, range(150)))
    palette = tuple((number, number, number) for number in range(150))
    predictor = Predictor(Coarse(), seen(replace(INFO, classes=Classes(names, palette)), **settings), "cpu")
    predictor.portions.numbers = 500_000
    with Largest() as largest:
        mask = predictor.class_map(torch.rand(3, 200, 250))
    assert mask.shape == (200, 250)
    assert largest.numbers < 1.5 * 500_000  # the full map has 7.5 million, the image at twice its size 0.6


def test_probabilities_make_one_map_of_their_size():
    image = torch.rand(3, 200, 300)
    with Largest() as largest:
        Predictor(Coarse(), INFO, "cpu").probabilities(image)
    assert largest.numbers == 150 * 200 * 300


class Alive(TorchDispatchMode):
    """The most bytes that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.held = {key: (ref, size) for key, (ref, size) in self.held.items() if not ref.expired()}
        self.most = max(self.most, sum(size for _, size in self.held.values()))
        return out


class Fine(nn.Module):
    """40 classes for each pixel."""

    def forward(self, images):
        return images.mean(dim=1, keepdim=True) * torch.linspace(-1, 1, 40)[:, None, None]


def test_windows_that_are_done_with_are_forgotten():
    """However tall the image, what is alive are the windows that cross the rows in work."""
    predictor = Predictor(Fine(), seen(mode="slide", window=(40, 50), stride=(20, 25)), "cpu")
    predictor.portions.numbers = 40 * 50 * 10
    peaks = []
    for height in (200, 1000):
        with Alive() as alive:
            predictor.class_map(torch.rand(3, height, 50))
        peaks.append(alive.most)
    image = 4 * (3 + 3 + 1) * 800 * 50  # floats, a copy on the way, and the mask
    assert peaks[1] - peaks[0] < image  # the logits of all windows are 5 times as much again as that of 800 rows
    assert 2 * image < 4 * 40 * 800 * 50


def test_folding_is_the_default_and_can_be_declined(tmp_path):
    network = living()
    save_model(tmp_path / "model", network, INFO)
    assert isinstance(Predictor(network, INFO, "cpu").network, FoldedANNNet)
    assert Predictor(network, INFO, "cpu", fold=False).network is network
    assert isinstance(load(tmp_path / "model", "cpu").network, FoldedANNNet)
    plain = load(tmp_path / "model", "cpu", fold=False)
    assert type(plain.network) is ANNNet
    given = load(tmp_path / "model", "cpu")(picture()).probabilities
    np.testing.assert_allclose(given, plain(picture()).probabilities, atol=1e-5)
    for fold in (True, False):
        predictor = Predictor(network, INFO, "cpu", fold=fold)
        assert predictor.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_half_precision_is_close():
    network = living()
    expected = Predictor(network, INFO, "cpu")(picture()).probabilities
    given = Predictor(network, INFO, "cpu", precision="bf16")(picture()).probabilities
    assert given.dtype == np.float32
    assert 0 < np.abs(given - expected).max() < 0.05


@pytest.mark.usefixtures("no_shape_checks")
def test_an_unknown_precision_is_one_line(tmp_path):
    save_model(tmp_path / "model", living(), INFO)
    with pytest.raises(ConfigError, match=r"^precision = 'fp8' is not one of auto, fp32, bf16, fp16$"):
        load(tmp_path / "model", "cpu", precision="fp8")


@pytest.mark.parametrize("settings", [{}, SLIDE, SLIDE | {"flip": True, "scales": (0.5, 1.5)}])
def test_probabilities_are_those_of_the_moment_of_the_call(settings):
    """They are made later, but what happens to the image or the predictor in between has no say in it."""
    predictor = Predictor(living(), seen(**settings), "cpu")
    image = torch.from_numpy(picture()).permute(2, 0, 1).contiguous()
    expected = predictor(image).probabilities
    result = predictor(image)
    image.zero_()
    predictor.info = seen(flip=True, scales=(0.7,))
    nn.init.zeros_(predictor.network.classifier.weight)
    np.testing.assert_array_equal(result.probabilities, expected)
    assert result.probabilities is result.probabilities


@pytest.mark.parametrize("settings", [{}, SLIDE | {"weighting": "tapered", "flip": True}])
def test_a_result_can_be_sent_to_another_process(settings):
    """Without the network: what it said is enough."""
    predictor = Predictor(living(), seen(**settings), "cpu")
    result = predictor(picture())
    sent = pickle.dumps(result)
    assert len(sent) < 4 * predictor.parameters
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.mask, result.mask)
    np.testing.assert_array_equal(again.probabilities, result.probabilities)


@pytest.mark.parametrize("settings", [{}, SLIDE | {"weighting": "tapered", "flip": True, "scales": (0.1, 1.0, 1.6)}])
def test_any_size(settings):
    """One pixel, one row, one column, narrower than a window and longer."""
    predictor = Predictor(living(), seen(**settings), "cpu")
    for height, width in [(1, 1), (1, 70), (70, 1), (5, 33), (24, 32), (25, 90)]:
        result = predictor(picture(height, width))
        assert result.mask.shape == (height, width)
        assert result.probabilities.shape == (3, height, width)
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
