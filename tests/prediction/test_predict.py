"""The predictor: with a network that reads the class off the colour, every pixel must come back where it was."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from colour_networks import Colours, Reading
from PIL import Image
from steadiness import growth

from asymseg.classes import IGNORE, Classes
from asymseg.data.files import read_mask
from asymseg.errors import CheckpointError, ConfigError, DataError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.loading import load
from asymseg.prediction.overlay import as_picture, colour_mask, draw_overlay
from asymseg.prediction.predict import Predictor, choose_device, to_tensor

CLASSES = Classes(("red", "green", "blue"), ((200, 10, 20), (30, 180, 40), (50, 60, 250)))
INFO = ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3)


def seen(**settings) -> ModelInfo:
    """A model that sees images so."""
    return replace(INFO, seeing=Seeing(**settings))


class Remembering(Colours):
    """Remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        self.seen.append(images.clone())
        return super().forward(images)


def picture_of(mask: np.ndarray) -> np.ndarray:
    """An image in which red, green or blue is brightest as the mask says."""
    return np.eye(3, dtype=np.uint8)[mask] * 255


def random_mask(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Reading(Remembering()), INFO, "cpu")


SIZES = [(1, 1), (1, 7), (2, 1), (3, 5), (17, 31), (33, 64), *np.random.default_rng(1).integers(1, 90, (8, 2)).tolist()]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_pixel_moves(predictor, size):
    mask = random_mask(*size)
    result = predictor(picture_of(mask))
    np.testing.assert_array_equal(result.mask, mask)
    assert result.mask.dtype == np.uint8
    assert result.probabilities.shape == (3, *size)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(predictor.class_map(to_tensor(picture_of(mask), 3)).numpy(), mask)


@pytest.mark.parametrize("multiple", [4, 32])
def test_no_pixel_moves_where_the_backbone_wants_multiples(predictor, multiple):
    predictor.network.backbone.size_multiple = multiple
    for height, width in ((1, 1), (5, 33), (31, 64)):
        mask = random_mask(height, width)
        np.testing.assert_array_equal(predictor(picture_of(mask)).mask, mask)
    assert all(side % multiple == 0 for image in predictor.network.backbone.seen for side in image.shape[2:])


def test_flipping_moves_no_pixel(predictor):
    predictor.info = seen(flip=True)
    mask = random_mask(9, 14)
    np.testing.assert_array_equal(predictor(picture_of(mask)).mask, mask)


def test_no_region_moves_under_scales():
    """Regions of 8 x 8 pixels survive resampling but for their borders."""
    predictor = Predictor(Reading(Remembering()), seen(scales=(0.5, 1.0, 1.7)), "cpu")
    coarse = random_mask(5, 7)
    mask = coarse.repeat(8, axis=0).repeat(8, axis=1)
    inside = np.zeros((8, 8), dtype=bool)
    inside[2:6, 2:6] = True
    inside = np.tile(inside, coarse.shape)
    np.testing.assert_array_equal(predictor(picture_of(mask)).mask[inside], mask[inside])


def test_every_kind_of_source_gives_the_same(predictor, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (11, 18, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    expected = predictor(picture)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    for source in (
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(picture),
        tensor,
        tensor / 255,
        (picture / 255).astype(np.float32),
    ):
        result = predictor(source)
        np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-6)
        np.testing.assert_array_equal(result.mask, expected.mask)
    assert expected.classes == CLASSES


def test_half_precision_tensors_are_taken(predictor):
    tensor = torch.from_numpy(picture_of(random_mask(4, 5))).permute(2, 0, 1) / 255
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        np.testing.assert_array_equal(predictor(tensor.to(kind)).mask, random_mask(4, 5))


def test_a_grey_array_is_a_picture(predictor):
    assert predictor(np.zeros((4, 6), dtype=np.uint8)).mask.shape == (4, 6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(1, 3, 4, 4), r"tensor C H W, got the shape \(1, 3, 4, 4\)"),
        (np.zeros(4, dtype=np.uint8), r"array H W or H W C, got the shape \(4,\)"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "4 channels where the network takes 3"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "without pixels"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "no known scale for int64"),
    ],
)
def test_what_is_no_image_is_refused(predictor, source, message):
    with pytest.raises(DataError, match=message):
        predictor(source)


def test_normalisation_by_hand():
    predictor = Predictor(Reading(Remembering()), replace(INFO, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)), "cpu")
    predictor(np.full((1, 1, 3), (255, 0, 51), dtype=np.uint8))
    assert predictor.network.backbone.seen[-1].flatten().tolist() == pytest.approx([1.0, -1.0, 0.1])


def test_channel_order_bgr():
    """Mean and standard deviation are in the network's order."""
    info = replace(INFO, channel_order="BGR", mean=(0.0, 0.0, 0.5), std=(1.0, 1.0, 0.5))
    predictor = Predictor(Reading(Remembering()), info, "cpu")
    result = predictor(np.full((1, 1, 3), (255, 0, 51), dtype=np.uint8))
    assert predictor.network.backbone.seen[-1].flatten().tolist() == pytest.approx([0.2, 0.0, 1.0])
    assert result.image.flatten().tolist() == [255, 0, 51]  # what is shown stays RGB


def smooth_image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (12, 17, 3), dtype=np.uint8)


class Lopsided(Reading):
    """Sees left and right differently."""

    def head(self, low, high):
        return high * torch.linspace(0, 5, high.shape[3])


def test_scales_and_flips_average_probabilities():
    network, image = Lopsided(), smooth_image()

    def shares(**settings) -> np.ndarray:
        return Predictor(network, seen(**settings), "cpu")(image).probabilities

    mirrored = Predictor(network, INFO, "cpu")(image[:, ::-1].copy()).probabilities[..., ::-1]
    np.testing.assert_allclose(shares(flip=True), (shares() + mirrored) / 2, atol=1e-6)
    assert np.abs(shares() - mirrored).max() > 0.1
    three = shares(scales=(0.5, 1.0, 1.5))
    np.testing.assert_allclose(
        three, (shares(scales=(0.5,)) + shares(scales=(1.0,)) + shares(scales=(1.5,))) / 3, atol=1e-6
    )
    assert np.abs(shares(scales=(0.5,)) - shares()).max() > 0.1
    np.testing.assert_allclose(three.sum(0), 1, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"flip": True}, {"scales": (0.5, 1.0)}, {"scales": (1.5,)}])
def test_class_map_is_the_mask(settings):
    predictor = Predictor(Lopsided(), seen(**settings), "cpu")
    image = smooth_image()
    np.testing.assert_array_equal(predictor.class_map(to_tensor(image, 3)).numpy(), predictor(image).mask)


@pytest.mark.parametrize("settings", [{}, {"flip": True, "scales": (0.5, 1.0)}])
def test_confidence_is_the_probability_of_the_class(settings):
    predictor = Predictor(Reading(Remembering()), seen(**settings), "cpu")
    image = torch.rand(3, 13, 19, generator=torch.Generator().manual_seed(2))
    mask, confidence = predictor.class_map_and_confidence(image)
    assert torch.equal(mask, predictor.class_map(image))
    torch.testing.assert_close(confidence, predictor.probabilities(image).amax(0))


def test_a_scale_never_makes_an_image_vanish(predictor):
    predictor.info = seen(scales=(0.1,))
    assert predictor(picture_of(random_mask(1, 3))).mask.shape == (1, 3)


def test_predicting_leaves_no_gradients_and_evaluation_mode(predictor):
    assert not predictor.network.training
    assert not predictor.probabilities(to_tensor(smooth_image(), 3)).requires_grad


def test_threads_files_and_memory_stay_over_many_predictions(no_shape_checks):
    torch.manual_seed(0)
    settings = {"stages": (1, 2), "key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0}
    predictor = Predictor(ANNNet(3, "resnet10t", pretrained=False, **settings), INFO, "cpu")
    pictures = [picture_of(random_mask(96 + number, 128)) for number in range(5)]

    def predict(number: int) -> None:
        predictor(pictures[number % 5]).overlay()

    assert growth(predict, warm=10, times=30) < 400_000  # thirty pictures are 1,100,000 bytes


def test_a_saved_mask_reads_back(predictor, tmp_path):
    mask = random_mask(6, 9)
    path = tmp_path / "new" / "mask.png"
    predictor(picture_of(mask)).save(path)
    np.testing.assert_array_equal(read_mask(path, CLASSES).numpy(), mask)
    with Image.open(path) as written:
        assert written.convert("RGB").getpixel((0, 0)) == CLASSES.palette[mask[0, 0]]


def test_overlay_by_hand(predictor):
    mask = random_mask(5, 4)
    overlay = np.asarray(predictor(picture_of(mask)).overlay(opacity=0.25))
    expected = 0.75 * picture_of(mask) + 0.25 * np.array(CLASSES.palette)[mask]
    np.testing.assert_allclose(overlay, expected, atol=0.5)


def test_overlay_leaves_ignored_pixels_clear():
    image = np.full((3, 1, 2), 100, dtype=np.uint8)
    mask = np.array([[0, IGNORE]], dtype=np.uint8)
    assert np.asarray(draw_overlay(image, mask, CLASSES)).tolist() == [[[150, 55, 60], [100, 100, 100]]]
    assert colour_mask(mask, CLASSES).tolist() == [[[200, 10, 20], [0, 0, 0]]]


def test_any_image_can_be_looked_at():
    assert as_picture(np.array([0.0, 0.5, 1.5], dtype=np.float32).reshape(3, 1, 1)).tolist() == [[[0, 128, 255]]]
    assert as_picture(np.array([7, 8, 9, 10], dtype=np.uint8).reshape(4, 1, 1)).tolist() == [[[7, 7, 7]]]


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(ConfigError, match=r"device = 'cuda:77' cannot be used here \([^\n]*\); try auto or cpu$"):
        choose_device("cuda:77")
    with pytest.raises(ConfigError, match=r"device = 'gpu' is none; give auto, cpu, cuda, cuda:1 or mps$"):
        choose_device("gpu")


def test_auto_finds_a_device():
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


def test_load_takes_a_model_folder_or_a_run(tmp_path):
    torch.manual_seed(0)
    network = ANNNet(
        3, "resnet10t", stages=(1, 2), key_channels=4, value_channels=4, context_channels=8, aux_channels=0
    )
    save_model(tmp_path / "run" / "best", network, seen(flip=True))
    image = smooth_image()
    direct, by_run = load(tmp_path / "run" / "best", "cpu"), load(str(tmp_path / "run"), "cpu")
    expected = Predictor(network, seen(flip=True), "cpu")(image).probabilities
    np.testing.assert_array_equal(direct(image).probabilities, by_run(image).probabilities)
    np.testing.assert_allclose(direct(image).probabilities, expected, atol=1e-6)
    assert direct.info.seeing.flip


def test_a_photo_turned_by_its_exif_tag_is_upright(predictor, tmp_path):
    mask = random_mask(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned right by 90 degrees
    content = io.BytesIO()
    Image.fromarray(picture_of(mask)).save(content, "PNG", exif=exif)
    (tmp_path / "photo.png").write_bytes(content.getvalue())
    np.testing.assert_array_equal(predictor(tmp_path / "photo.png").mask, np.rot90(mask, -1))


def test_a_hub_id_is_fetched_and_only_the_files_of_a_model(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def fetching(hub_id, allow_patterns, revision, token):
        asked.append((hub_id, allow_patterns))
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetching)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="not a model folder"):
        load("someone/roads")
    assert asked == [("someone/roads", ["model.safetensors", "config.json", "README.md"])]


def test_a_hub_id_that_cannot_be_fetched_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the tests keep the hub offline
    with pytest.raises(CheckpointError, match="someone/roads: neither a folder here nor a model"):
        load("someone/roads")
