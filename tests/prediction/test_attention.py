"""The regions a pixel drew on: the very weights of the forward pass, where they belong, as data and as a picture."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from asymseg.classes import Classes
from asymseg.data.transforms import normalise
from asymseg.errors import ConfigError, DataError
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.prediction.attention import Attention, BlockAttention
from asymseg.prediction.predict import Predictor

INFO = ModelInfo(Classes(("ground", "disc", "beacon")), (0.1, 0.2, 0.3), (0.3, 0.2, 0.25))
NARROW = {"key_channels": 8, "value_channels": 3, "context_channels": 6, "aux_channels": 0}


class Local(nn.Module):
    """Strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (6, 8)
        self.low = nn.Sequential(nn.Conv2d(3, 6, 7, 4, padding=3), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(6, 8, 3, 2, padding=1), nn.ReLU())

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


def make(backbone=None, *, fold=True, **settings):
    torch.manual_seed(0)
    network = ANNNet(3, backbone or Local(), **NARROW | settings).eval()
    for block in (network.fusion, network.context):
        for name, parameter in block.named_parameters() if block is not None else ():
            if parameter.dim() == 4:
                nn.init.normal_(parameter, std=3.0 if name.startswith(("query", "key")) else 0.3)
    nn.init.normal_(network.project[0].weight, std=0.5)
    return Predictor(network, INFO, "cpu", fold=fold)


def picture(height=97, width=150):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def by_return_attention(network, image):
    """The blocks' own word: N S of each, and the sizes of the two maps."""
    low, high = network.backbone(normalise(image, INFO.mean, INFO.std)[None])
    fused, of_fusion = network.fusion(low, high, return_attention=True)
    _, of_context = network.context(network.project(fused), return_attention=True)
    return of_fusion[0], of_context[0], low.shape[2:], high.shape[2:]


@pytest.mark.parametrize("fold", [False, True])
def test_the_very_weights(fold):
    plain, predictor = make(fold=False), make(fold=fold)
    result = predictor(picture())
    of_fusion, of_context, _, size = by_return_attention(plain.network, torch.from_numpy(result.image))
    assert size == (13, 19)
    for row, column in ((0, 0), (96, 149), (40, 77), (7, 8), (8, 7)):
        cell = int((row + 0.5) * 13 / 97) * 19 + int((column + 0.5) * 19 / 150)
        attention = result.attention(row, column)
        assert [block.name for block in attention.blocks] == ["fusion", "context"]
        for block, expected in zip(attention.blocks, (of_fusion, of_context), strict=True):
            assert block.pool_sizes == (1, 3, 6, 8)
            np.testing.assert_allclose(block.weights, expected[cell].numpy(), atol=1e-5 if fold else 1e-6)
            assert block.weights.sum() == pytest.approx(1, abs=1e-6)
            assert block.weights.max() > 2 / 110  # it does choose
    assert not np.allclose(result.attention(0, 0)["context"].weights, result.attention(96, 149)["context"].weights)


def test_regions_by_hand():
    """A map of 4 x 8 cells of 8 pixels, of an image that ends within the last ones; a grid of 1 and one of 3."""
    block = make(pool_sizes=(1, 3))(picture(30, 60)).attention(3, 3)["context"]
    assert block.boxes.tolist() == [
        [0, 30, 0, 60],
        *[[*rows, *columns] for rows in ((0, 15), (8, 23), (15, 30)) for columns in ((0, 23), (15, 45), (38, 60))],
    ]


def test_regions_of_a_pyramid_cover_the_image_once_or_overlap_by_a_cell():
    attention = make()(picture(200, 300)).attention(100, 100)
    for block, stride in zip(attention.blocks, (4, 8), strict=True):
        first = 0
        for size in block.pool_sizes:
            boxes = block.boxes[first : first + size**2].reshape(size, size, 4)
            assert boxes[0, :, 0].tolist() == [0] * size
            assert boxes[-1, :, 1].tolist() == [200] * size
            assert boxes[:, -1, 3].tolist() == [300] * size
            overlap = boxes[:, :-1, 3] - boxes[:, 1:, 2]
            assert (overlap >= 0).all()
            assert (overlap <= stride + 1).all()
            first += size**2


def test_heat_is_what_each_cell_gives_to_the_context():
    """The sum of features by the heat is the sum of the pools by the weights."""
    predictor = make(fold=False)
    result = predictor(picture(96, 144))  # whole cells, so that each is as many pixels of the heat
    with torch.no_grad():
        low, _ = predictor.network.backbone(normalise(torch.from_numpy(result.image), INFO.mean, INFO.std)[None])
    attention = result.attention(50, 60)
    pools = torch.cat([F.adaptive_avg_pool2d(low, size).flatten(2) for size in (1, 3, 6, 8)], dim=2)[0]
    expected = pools.numpy() @ attention["fusion"].weights
    heat = attention["fusion"].heat[::4, ::4]
    np.testing.assert_allclose((low[0].numpy() * heat).sum(axis=(1, 2)), expected, rtol=1e-4)
    assert attention["fusion"].heat.sum() / 16 == pytest.approx(1, abs=1e-5)
    assert attention["context"].heat.sum() / 64 == pytest.approx(1, abs=1e-5)
    assert attention["context"].heat.shape == (96, 144)


def test_the_picture_by_hand():
    """Bare where there is no heat, inferno's last colour at the hottest, by half at a quarter of that."""
    heat = np.zeros((40, 60), np.float32)
    heat[:10, 50:], heat[30:, 50:] = 2.0, 0.5
    whole = np.ones(1, np.float32), np.array([[0, 40, 0, 60]])
    fusion, context = (BlockAttention(name, (1,), *whole, heat) for name in ("fusion", "context"))
    bare = replace(fusion, heat=np.eye(1, 2400, dtype=np.float32).reshape(40, 60))
    image = np.full((3, 40, 60), 100, dtype=np.uint8)
    last, quarter = 255 * np.array([0.988, 0.998, 0.645]), 255 * np.array([0.342, 0.062, 0.429])
    for attention, block in (
        (Attention(20, 20, image, (fusion, context)), None),
        (Attention(20, 20, image, (bare, context)), "context"),
    ):
        pixels = np.asarray(attention.picture(block, enlarge=2, opacity=0.6))
        assert pixels.shape == (80, 120, 3)
        np.testing.assert_allclose(pixels[5, 110], 20 + 0.6 * last, atol=1)
        np.testing.assert_allclose(pixels[75, 110], 35 + 0.3 * quarter, atol=1.5)
        assert pixels[70, 5].tolist() == pixels[41, 41].tolist() == [50, 50, 50]  # within the ring too
        white = np.argwhere((pixels == 255).all(axis=2))
        np.testing.assert_allclose(white.mean(axis=0), (41, 41), atol=1)  # around the middle of pixel 20


def test_a_picture_of_floats_and_of_no_attention_anywhere():
    result = make()(picture().astype(np.float32) / 255)
    shown = result.attention(3, 3).picture()
    assert isinstance(shown, Image.Image)
    assert shown.size == (150, 97)


@pytest.mark.parametrize(
    ("fusion", "context", "names"),
    [
        ("afnb", "none", ["fusion"]),
        ("none", "apnb", ["context"]),
        ("afnb", "nonlocal", ["fusion"]),
        ("afnb", "psp", ["fusion"]),
    ],
)
@pytest.mark.parametrize("fold", [False, True])
def test_a_block_that_is_not_there_is_left_out(fusion, context, names, fold):
    attention = make(fusion=fusion, context=context, fold=fold)(picture()).attention(1, 2)
    assert [block.name for block in attention.blocks] == names
    with pytest.raises(KeyError):
        attention["context" if names == ["fusion"] else "fusion"]


def test_no_block_at_all():
    result = make(fusion="none", context="nonlocal")(picture())
    with pytest.raises(ConfigError, match=r"no block that looks at regions \(fusion 'none', context 'nonlocal'\)"):
        result.attention(1, 2)


@pytest.mark.parametrize("seeing", [{"scales": (1.0, 1.5)}, {"flip": True}, {"mode": "slide", "window": (64, 64)}])
def test_several_looks_have_no_attention_of_their_own(seeing):
    result = make().seeing(**seeing)(picture())
    with pytest.raises(ConfigError, match="attention is that of one look at the whole image") as caught:
        result.attention(1, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("scale", "align_corners"), [(2.0, False), (0.5, False), (2.0, True)])
def test_one_look_at_another_scale(scale, align_corners):
    """As of the scaled image, its regions where they lie in the image itself."""
    predictor = make(align_corners=align_corners)
    image = np.asarray(picture(96, 144), np.float32) / 255
    grown = predictor.seeing(scales=(scale,))(image)
    size = (int(96 * scale), int(144 * scale))
    x = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
    direct = predictor(x[0])
    last = (size[0] - 1, size[1] - 1)
    pairs = [((0, 0), (0, 0)), ((95, 143), last)]  # corners lie on corners in either convention
    if not align_corners:
        pairs.append(((33, 100), (int(33.5 * scale), int(100.5 * scale))))
    for here, there in pairs:
        ours, theirs = grown.attention(*here), direct.attention(*there)
        for block, expected in zip(ours.blocks, theirs.blocks, strict=True):
            np.testing.assert_allclose(block.weights, expected.weights, atol=1e-5)
            assert np.abs(block.boxes - expected.boxes / scale).max() <= 1
            assert block.heat.shape == (96, 144)
            assert block.heat.max() == pytest.approx(expected.heat.max(), rel=1e-4)


def test_a_window_that_holds_the_image_is_one_look():
    predictor = make()
    whole = predictor(picture()).attention(9, 9)
    slid = predictor.seeing(mode="slide", window=(128, 256))(picture()).attention(9, 9)
    np.testing.assert_array_equal(slid["context"].weights, whole["context"].weights)


@pytest.mark.parametrize(("row", "column"), [(97, 0), (0, 150), (-1, 3)])
def test_a_place_outside_the_image(row, column):
    with pytest.raises(DataError, match=f"row {row}, column {column}: not within the image of 97 rows and 150 columns"):
        make()(picture()).attention(row, column)


def test_the_network_is_run_again_once_and_only_when_asked():
    predictor = make()
    calls = []
    predictor.network.backbone.register_forward_hook(lambda *_: calls.append(1))
    result = predictor(picture())
    assert len(calls) == 1
    result.attention(1, 2)
    result.attention(50, 60)
    assert len(calls) == 2


def test_a_result_that_was_sent_elsewhere_says_what_to_do():
    result = make()(picture())
    assert len(pickle.dumps(result)) < 10 * result.image.size  # without the network
    with pytest.raises(ConfigError, match="predict the image again"):
        pickle.loads(pickle.dumps(result)).attention(1, 2)


class InMultiples(Local):
    size_multiple = 64


@pytest.mark.parametrize("align_corners", [False, True])
def test_padding_and_corners(align_corners):
    """Regions that lie in the padding alone are empty; the pixel's cell is that of the padded image."""
    predictor = make(InMultiples(), align_corners=align_corners, fold=False)
    result = predictor(picture(33, 70))
    padded = F.pad(normalise(torch.from_numpy(result.image), INFO.mean, INFO.std)[None], (0, 58, 0, 31))
    with torch.no_grad():
        low, high = predictor.network.backbone(padded)
        _, weights = predictor.network.fusion(low, high, return_attention=True)
    attention = result.attention(32, 69)
    cell = (round(32 * 7 / 63), round(69 * 15 / 127)) if align_corners else (4, 8)
    expected = weights[0, cell[0] * 16 + cell[1]].numpy()
    np.testing.assert_allclose(attention["fusion"].weights, expected, atol=1e-6)
    assert attention["fusion"].boxes[0].tolist() == [0, 33, 0, 70]
    assert attention["fusion"].boxes[-1].tolist() == [33, 33, 70, 70]
    assert attention["fusion"].heat.shape == (33, 70)


def test_bgr():
    predictor = make(fold=False)
    ordered = Predictor(predictor.network, replace(INFO, channel_order="BGR"), "cpu", fold=False)
    image = picture()
    mirrored = predictor(image[..., ::-1].copy()).attention(5, 5)
    np.testing.assert_allclose(ordered(image).attention(5, 5)["fusion"].weights, mirrored["fusion"].weights, atol=1e-6)
