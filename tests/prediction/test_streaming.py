"""Whole-image context by tiles, against the network on the whole image at once."""

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
from asymseg.model.reach import measure_reach
from asymseg.prediction.many.files import predict_files
from asymseg.prediction.predict import Predictor
from asymseg.prediction.streaming import gather_tokens, predict_tile, stream
from asymseg.prediction.tiles import TensorSource, plan_tiles
from asymseg.prediction.tokens import Tokens

INFO = ModelInfo(Classes(("ground", "disc", "beacon")), (0.1, 0.2, 0.3), (0.3, 0.2, 0.25))
NARROW = {"key_channels": 4, "value_channels": 3, "context_channels": 6, "aux_channels": 0}


class Local(nn.Module):
    """Strides 4 and 8; a cell looks 3 and 14 pixels beyond its own first one, and so at most so far beyond its own."""

    channels = (6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 6, 7, 4, padding=3), nn.BatchNorm2d(6), nn.ReLU())
        self.high = nn.Sequential(
            nn.Conv2d(6, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


class InMultiples(Local):
    """Takes multiples of 24 pixels alone."""

    size_multiple = 24

    def forward(self, images):
        assert images.shape[2] % 24 == images.shape[3] % 24 == 0
        return super().forward(images)


class PaddedSame(Local):
    """Shares out its padding by the size of the image, as TensorFlow does."""

    def forward(self, images):
        convolution, *rest = self.low
        pads = [max(0, (-(-side // 4) - 1) * 4 + 7 - side) for side in images.shape[2:]]
        (down, right), (top, left) = pads, (pad // 2 for pad in pads)
        x = F.conv2d(F.pad(images, (left, right - left, top, down - top)), convolution.weight, convolution.bias, 4)
        low = nn.Sequential(*rest)(x)
        return low, self.high(low)


def lively(network):
    """In evaluation mode, in float64; each part of it matters, and no class wins everywhere."""
    for name, parameter in network.named_parameters():
        nn.init.uniform_(parameter, 0.5, 1.5) if parameter.dim() == 1 and "weight" in name else None
        nn.init.normal_(parameter, std=0.4) if parameter.dim() == 1 and "bias" in name else None
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    for block in (network.fusion, network.context):
        if block is not None:
            for layer in block.output if isinstance(block.output, nn.Sequential) else [block.output]:
                nn.init.normal_(layer.weight, std=0.7)
            nn.init.normal_(block.value.weight)
            for layers in (block.query, getattr(block, "key", None)):
                nn.init.normal_(layers[0].weight) if isinstance(layers, nn.Sequential) else None
    nn.init.normal_(network.project[0].weight, std=0.3)
    nn.init.normal_(network.classifier.weight)
    network.double().eval()
    with torch.no_grad():
        network.classifier.bias -= network(torch.rand(1, 3, 96, 96, dtype=torch.float64)).mean(dim=(0, 2, 3))
    return network


def make(backbone=None, *, fold=True, **settings):
    torch.manual_seed(0)
    settings = NARROW | settings
    return Predictor(lively(ANNNet(3, backbone or Local(), **settings)), INFO, "cpu", fold=fold)


def picture(height, width, seed=0):
    """Unlike anywhere, so that a token of another place shows."""
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    return noise * torch.linspace(0.2, 1, width) + torch.linspace(0, 1, height)[:, None]


@torch.no_grad()
def whole(predictor, image):
    """Class probabilities of the image, seen at once, in float64."""
    pixels = normalise(image, INFO.mean, INFO.std)[None].double()
    return predictor.network(pixels)[0].softmax(dim=0)


def by_tiles(predictor, image, tiles):
    source = TensorSource(image)
    tokens = gather_tokens(predictor, source, tiles)
    out = torch.full((3, *source.size), torch.nan, dtype=torch.float64)
    for tile in tiles:
        out[:, tile.core[0], tile.core[1]] = predict_tile(predictor, tokens, source, tile, probabilities=True)
    return out


SIZES = [(1, 1), (3, 150), *np.random.default_rng(0).integers(60, 190, (3, 2)).tolist()]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(
    ("fusion", "context", "merge"),
    [
        ("afnb", "apnb", "concat"),
        ("afnb", "apnb", "add"),
        ("afnb", "apnb", "none"),
        ("none", "apnb", "concat"),
        ("afnb", "none", "concat"),
        ("none", "none", "concat"),
    ],
)
def test_the_whole_image(fusion, context, merge, fold):
    """Any sizes, any tiles: to float64's rounding what the network says of all of it at once."""
    predictor = make(fusion=fusion, context=context, merge=merge, fold=fold)
    reach = measure_reach(predictor.network.backbone, 3)
    rng = np.random.default_rng(1)
    for seed, (height, width) in enumerate(SIZES):
        image = picture(height, width, seed)
        tiles = plan_tiles(predictor, (height, width), int(rng.integers(30, 90)), reach=reach)
        assert all(tile.exact for tile in tiles)
        torch.testing.assert_close(by_tiles(predictor, image, tiles), whole(predictor, image), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        (Local(), {"refine": True}),
        (Local(), {"align_corners": True}),
        (Local(), {"pool_sizes": (2, 5)}),
        (InMultiples(), {}),
        (InMultiples(), {"align_corners": True}),
        (PaddedSame(), {}),
        ("test_resnet", {}),
        ("resnet10t", {"stages": (1, 2)}),
    ],
)
def test_other_networks(backbone, settings):
    predictor = make(backbone, **settings)
    reach = measure_reach(predictor.network.backbone, 3)
    for height, width, tile in ((150, 211, 48), (131, 90, 64)):
        image = picture(height, width)
        tiles = plan_tiles(predictor, (height, width), tile, reach=reach)
        assert len(tiles) > 3
        torch.testing.assert_close(by_tiles(predictor, image, tiles), whole(predictor, image), rtol=0, atol=1e-10)


def test_tiles_read_less_than_the_image():
    predictor = make()
    tiles = plan_tiles(predictor, (400, 500), 64)
    sides = {span.stop - span.start for tile in tiles for span in tile.padded}
    assert max(sides) <= 64 + 2 * (16 + 3 * 8 + 8)
    assert len(tiles) == 7 * 8


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (97, 64), (128, 130)])
@pytest.mark.parametrize("tile", [1, 40, 1000])
def test_cores_cover_each_pixel_once(size, tile):
    predictor = make(InMultiples())
    seen = np.zeros(size, dtype=int)
    for part in plan_tiles(predictor, size, tile):
        seen[part.core] += 1
        for axis in (0, 1):
            core, padded = part.core[axis], part.padded[axis]
            assert 0 <= padded.start <= core.start < core.stop <= padded.stop <= size[axis]
            assert padded.start % 24 == 0
            assert (size[axis] - padded.stop) % 24 == 0
    assert (seen == 1).all()


def test_the_error_falls_as_the_halo_grows():
    predictor = make("resnet10t", stages=(1, 2))
    reach = measure_reach(predictor.network.backbone, 3)
    image = picture(90, 100)
    expected = whole(predictor, image)
    errors = []
    for halo in (0, 16, reach.radius):
        tiles = plan_tiles(predictor, (90, 100), 40, halo, reach)
        assert tiles[0].exact == (halo == reach.radius)
        errors.append(float((by_tiles(predictor, image, tiles) - expected).abs().mean()))
    assert errors[0] > 10 * errors[1] > 0
    assert errors[2] < 1e-14


def test_context_is_that_of_the_whole_image():
    """What lies in one corner decides about a tile in the other, as far as it gets into the tokens."""
    predictor = make()
    image = picture(200, 240)
    other = image.clone()
    other[:, :40, :40] = 1 - other[:, :40, :40]
    tiles = plan_tiles(predictor, (200, 240), 64)
    changed = (by_tiles(predictor, image, tiles) - by_tiles(predictor, other, tiles))[:, -40:, -40:].abs().max()
    assert changed > 1e-5
    assert changed == pytest.approx(
        float((whole(predictor, image) - whole(predictor, other))[:, -40:, -40:].abs().max()), abs=1e-12
    )


def test_a_predictor_of_bytes_in_float32():
    """Class ids and probabilities as `Predictor` gives them, from the same kinds of sources."""
    torch.manual_seed(0)
    predictor = Predictor(lively(ANNNet(3, Local(), **NARROW)).float(), INFO, "cpu")
    image = np.random.default_rng(0).integers(0, 256, (97, 150, 3), dtype=np.uint8)
    told = []
    streamed = stream(predictor, image, tile=40, progress=lambda done, total: told.append((done, total)))
    expected = predictor(image)
    np.testing.assert_allclose(streamed.probabilities, expected.probabilities, atol=1e-5)
    assert (streamed.mask != expected.mask).mean() < 1e-3
    assert streamed.mask.dtype == np.uint8
    np.testing.assert_array_equal(streamed.mask, streamed.probabilities.argmax(axis=0))
    assert told == [(number, 36) for number in range(1, 37)]  # 3 x 4 tiles, three passes
    np.testing.assert_array_equal(streamed.image, expected.image)


@pytest.mark.parametrize("probabilities", [False, True])
def test_image_files_by_tiles(tmp_path, probabilities):
    torch.manual_seed(0)
    predictor = Predictor(lively(ANNNet(3, Local(), **NARROW)).float(), INFO, "cpu")
    for name, size in (("a", (60, 75)), ("b", (41, 30))):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    for out, settings in (("whole", {}), ("tiles", {"tile": 24}), ("near", {"tile": 24, "halo": 0})):
        outcome = predict_files(
            predictor, tmp_path / "images", tmp_path / out, probabilities=probabilities, overlay=False, **settings
        )
        assert len(outcome.written) == 2
    whole, tiles = (np.asarray(Image.open(tmp_path / out / "a.png")) for out in ("whole", "tiles"))
    assert (whole != tiles).mean() < 1e-3
    assert len(np.unique(whole)) > 1
    if probabilities:
        outs = [np.load(tmp_path / out / "a_probabilities.npz")["probabilities"] for out in ("whole", "tiles", "near")]
        np.testing.assert_allclose(outs[1], outs[0], atol=2e-3)  # they are saved in half precision
        assert (outs[2] != outs[1]).any()  # the halo gets there


def test_channel_order_bgr():
    torch.manual_seed(0)
    network = lively(ANNNet(3, Local(), **NARROW)).float()
    predictor = Predictor(network, replace(INFO, channel_order="BGR"), "cpu")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        stream(predictor, image, tile=24).probabilities, predictor(image).probabilities, atol=1e-5
    )


def test_tokens_on_disk(tmp_path):
    predictor = make()
    image = picture(90, 70)
    tiles = plan_tiles(predictor, (90, 70), 40)
    source = TensorSource(image)
    tokens = gather_tokens(predictor, source, tiles)
    tokens.save(tmp_path / "tokens.safetensors")
    again = Tokens.load(tmp_path / "tokens.safetensors")
    assert again.size == (90, 70)
    assert torch.equal(
        predict_tile(predictor, again, source, tiles[0]), predict_tile(predictor, tokens, source, tiles[0])
    )
    without = gather_tokens(make(fusion="none", context="none"), source, tiles)
    without.save(tmp_path / "none.safetensors")
    assert Tokens.load(tmp_path / "none.safetensors") == Tokens((90, 70))
    (tmp_path / "tokens.safetensors").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"tokens.safetensors: no tokens of an image \([^\n]*\); remove it"):
        Tokens.load(tmp_path / "tokens.safetensors")


def test_tokens_of_another_image_are_refused():
    predictor = make()
    source = TensorSource(picture(90, 70))
    tiles = plan_tiles(predictor, (90, 70), 40)
    with pytest.raises(DataError, match=r"of an image of \(90, 71\) and not of \(90, 70\)"):
        predict_tile(predictor, Tokens((90, 71)), source, tiles[0])


class Global(Local):
    """Ends in squeeze-and-excite, more or less."""

    def forward(self, images):
        low, high = super().forward(images)
        return low, high * high.mean(dim=(2, 3), keepdim=True).sigmoid()


def test_a_backbone_that_looks_at_all_needs_a_halo_in_so_many_words():
    predictor = make(Global())
    with pytest.raises(ConfigError, match="looks at the whole image .* give one, such as --overlap 256") as caught:
        plan_tiles(predictor, (100, 100), 40)
    assert "\n" not in str(caught.value)
    tiles = plan_tiles(predictor, (100, 100), 40, halo=16)
    assert not any(tile.exact for tile in tiles)
    image = picture(100, 100)
    assert (by_tiles(predictor, image, tiles) - whole(predictor, image)).abs().max() < 0.5


@pytest.mark.parametrize("context", ["nonlocal", "nonlocal_wang"])
def test_a_context_of_all_pixels_is_refused(context):
    predictor = make(context=context)
    with pytest.raises(ConfigError, match=f"context '{context}' is not made of tokens"):
        plan_tiles(predictor, (100, 100), 40)


def test_several_looks_are_refused():
    predictor = make()
    source = TensorSource(picture(90, 70))
    tiles = plan_tiles(predictor, (90, 70), 40)
    for several in ({"scales": (1.0, 2.0)}, {"flip": True}):
        with pytest.raises(ConfigError, match=r"takes one look .* use predictor.seeing\(scales=\(1.0,\), flip=False\)"):
            gather_tokens(predictor.seeing(**several), source, tiles)


def test_a_network_of_ones_own_is_refused():
    class Own(ANNNet):
        def head(self, low, high):
            return 2 * super().head(low, high)

    predictor = Predictor(Own(3, Local(), **NARROW), INFO, "cpu")
    with pytest.raises(ConfigError, match="Own may compute something else"):
        plan_tiles(predictor, (100, 100), 40)


@pytest.mark.parametrize("arguments", [{"tile": 0}, {"tile": 8, "halo": -1}])
def test_senseless_tiles_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"= (0|-1): tile must be at least 1 and halo at least 0"):
        plan_tiles(make(), (100, 100), **arguments)
