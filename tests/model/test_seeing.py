"""How a model sees an image: what may be said of it, what follows when a part is changed, and in words."""

import json

import pytest

from asymseg.classes import Classes
from asymseg.errors import CheckpointError, ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import load_model, save_model
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing


def test_a_stride_is_two_thirds_of_the_window_by_itself():
    """513 pixels for windows of 769, as in mmsegmentation's settings."""
    assert Seeing(window=(769, 769)).steps == (513, 513)
    assert Seeing(window=(1, 2)).steps == (1, 2)
    assert Seeing(window=(9, 10), stride=(9, 1)).steps == (9, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "crop"}, "mode = 'crop' is not one of whole, slide"),
        ({"weighting": "round"}, "weighting = 'round' is not one of flat, tapered"),
        ({"average": "median"}, "average = 'median' is not one of probabilities, logits, mixed"),
        ({"window": (0, 5)}, r"window must be a height and a width of at least 1 pixel, not \(0, 5\)"),
        ({"stride": (3, -1)}, r"stride must be a height and a width of at least 1 pixel, not \(3, -1\)"),
        ({"window": (64, 64), "stride": (64, 65)}, "a stride of 64x65 leaves gaps between windows of 64x64; choose"),
        ({"scales": ()}, "scales must be numbers above 0"),
        ({"scales": (1.0, float("nan"))}, "scales must be numbers above 0"),
        ({"scales": (1.0, float("inf"))}, "scales must be numbers above 0"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Seeing(**settings)


def test_only_what_is_given_changes():
    seeing = Seeing("slide", (64, 96), (32, 40), "tapered", (0.75, 1.0), True, "mixed")
    assert seeing.changed() == seeing
    assert seeing.changed(mode="whole") == Seeing("whole", (64, 96), (32, 40), "tapered", (0.75, 1.0), True, "mixed")
    assert seeing.changed(stride=(1, 1)).stride == (1, 1)
    assert seeing.changed(scales=(2.0,), flip=False, average="logits", weighting="flat") == Seeing(
        "slide", (64, 96), (32, 40), "flat", (2.0,), False, "logits"
    )


def test_a_new_window_has_its_own_stride():
    """The old one would leave gaps between smaller windows."""
    seeing = Seeing("slide", (769, 769), (513, 513))
    assert seeing.changed(window=(300, 300)).steps == (200, 200)
    assert seeing.changed(window=(300, 300), stride=(150, 150)).steps == (150, 150)


@pytest.mark.parametrize("settings", [{"window": (8, 8)}, {"stride": (8, 8)}, {"weighting": "tapered"}])
def test_windows_for_a_model_that_sees_whole_need_the_mode(settings):
    with pytest.raises(ConfigError, match=f"^{next(iter(settings))} has no effect in .* whole.*add the mode slide$"):
        Seeing().changed(**settings)
    assert Seeing().changed(mode="slide", **settings).mode == "slide"
    assert Seeing().changed(mode="whole", **settings).mode == "whole"


def test_in_words():
    assert str(Seeing()) == "scale 1"
    assert str(Seeing(scales=(0.5, 1.0), flip=True)) == "scale 0.5, 1, also mirrored, probabilities averaged"
    assert (
        str(Seeing("slide", (769, 769), None, "tapered", average="mixed"))
        == "scale 1, tapered windows of 769x769, stride 513x513, logits of windows and probabilities of views averaged"
    )
    assert str(Seeing(average="logits")) == "scale 1"


@pytest.fixture
def saved(tmp_path):
    narrow = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0}
    network = ANNNet(2, "resnet10t", stages=(1, 2), **narrow)
    save_model(tmp_path / "model", network, ModelInfo(Classes(("a", "b")), (0.5,) * 3, (0.5,) * 3))
    return tmp_path / "model"


def change(folder, prediction):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["prediction"] = prediction
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_folders_of_earlier_versions_are_read(saved):
    change(saved, {"scales": [0.5, 1.0], "flip": True})
    info = load_model(saved)[1]
    assert info.seeing == Seeing(scales=(0.5, 1.0), flip=True)
    assert (info.seeing.scales, info.seeing.flip) == ((0.5, 1.0), True)
    change(saved, {})
    assert load_model(saved)[1].seeing == Seeing()


@pytest.mark.parametrize(
    "prediction",
    [
        {"mode": "slid"},
        {"mode": ["slide"]},
        {"window": 5},
        {"window": [5]},
        {"window": ["a", "b"]},
        {"stride": [600, 600]},
        {"window": [1.5, 2]},
        {"average": None},
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_nonsense_in_a_folder_is_refused_in_one_line(saved, prediction):
    change(saved, prediction)
    with pytest.raises(CheckpointError, match="config.json: does not describe a model") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)
