"""Settings: through YAML and back, every unknown key named with its nearest, every contradiction refused."""

from itertools import pairwise
from typing import Literal, get_args, get_origin

import pytest
import yaml

from asymseg.cli import main
from asymseg.config import RECIPES, Config, make_config, read_config, recipe_names
from asymseg.errors import ConfigError


def sections(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in type(config).model_fields}


def test_defaults_come_back_from_yaml():
    assert make_config(yaml.safe_load(Config().to_yaml())) == Config() == make_config()


def test_other_settings_come_back_from_yaml(tmp_path):
    config = make_config(
        {
            "model": {"pretrained": "weights/trunk.safetensors", "pool_sizes": [1, 2], "stages": [1, 2]},
            "data": {"mean": [0.5], "std": [0.25], "images": "in", "masks": "out"},
            "train": {"class_weights": [1, 2.5], "ohem_min_share": 0.1, "clip_norm": 1, "ema": 0.99},
            "eval": {"scales": [0.75, 1], "flip": True, "mode": "slide", "window": [64, 96], "average": "mixed"},
        }
    )
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    again = make_config(read_config(tmp_path / "config.yaml"))
    assert again == config
    assert str(again.model.pretrained) == "weights/trunk.safetensors"
    assert again.train.class_weights == (1.0, 2.5)
    assert make_config({"train": {"class_weights": "median_frequency"}}).train.class_weights == "median_frequency"


def test_every_setting_says_what_it_is():
    for name, section in sections(Config()).items():
        for key, field in type(section).model_fields.items():
            assert (field.description or "").endswith("."), f"{name}.{key}"


def test_later_layers_win_key_by_key():
    config = make_config({"train": {"steps": 5, "seed": 7}}, {"train": {"steps": 9}}, {"eval": {"flip": True}})
    assert (config.train.steps, config.train.seed, config.eval.flip) == (9, 7, True)


def test_layers_are_left_as_they_are():
    layer = {"train": {"steps": 5}}
    make_config(layer, {"train": {"steps": 9}})
    assert layer == {"train": {"steps": 5}}


def test_settings_are_fixed_once_made():
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"learning_rat": 1}}, "unknown setting 'train.learning_rat'; did you mean 'learning_rate'?"),
        ({"model": {"key_chanels": 1}}, "unknown setting 'model.key_chanels'; did you mean 'key_channels'?"),
        ({"trian": {"steps": 1}}, "unknown setting 'trian'; did you mean 'train'?"),
        ({"zzz": 1}, "unknown setting 'zzz'; known here: model, data, train, eval"),
        ({"learning_rate": 1}, "unknown setting 'learning_rate'; did you mean 'train.learning_rate'?"),
        ({"learning_rat": 1}, "unknown setting 'learning_rat'; did you mean 'train.learning_rate'?"),
        ({"train": {"backbone": "x"}}, "unknown setting 'train.backbone'; did you mean 'model.backbone'?"),
        ({"train": {"steps": 0}}, "train.steps = 0: input should be greater than or equal to 1"),
        ({"train": {"steps": "many"}}, "train.steps = 'many'"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate = nan"),
        ({"train": {"optimizer": "adam"}}, "train.optimizer = 'adam': input should be 'sgd' or 'adamw'"),
        ({"model": {"context": "ocr"}}, "model.context = 'ocr'"),
        ({"model": {"output_stride": 4}}, "model.output_stride = 4"),
        ({"model": {"pool_sizes": []}}, r"model.pool_sizes = []"),
        ({"model": {"stages": [1]}}, "model.stages"),
        ({"data": {"scale": [2, 0.5]}}, "data.scale must be two numbers above 0, the smaller first, not 2.0 0.5"),
        ({"data": {"aspect": [0, 1]}}, "data.aspect must be two numbers above 0"),
        ({"data": {"crop_size": [0, 5]}}, "data.crop_size must be at least 1 1, not 0 5"),
        ({"data": {"images": "x"}}, "data.images and data.masks go together"),
        ({"data": {"mean": [0.5]}}, "data.mean and data.std go together"),
        ({"eval": {"scales": []}}, "eval.scales = []"),
    ],
)
def test_faults_are_named_in_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        make_config(settings, where="x.yaml")
    assert str(caught.value).startswith("x.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_load(name):
    assert make_config(read_config(name)) != Config()


def test_every_recipe_is_listed():
    assert {"sample", "camvid-mobilenetv2"} <= set(recipe_names())
    assert len(recipe_names()) == len(list(RECIPES.iterdir()))


def test_a_file_of_a_recipes_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").write_text("train: {steps: 3}")
    assert read_config("sample") == {"train": {"steps": 3}}


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# all defaults\n")
    assert read_config(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "not readable as YAML"),
        ("- 1\n- 2\n", "expected sections such as 'model:' and 'train:', found list"),
        ("train:\n  stepps: 3\n", "unknown setting 'train.stepps'; did you mean 'steps'?"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_recipes(tmp_path):
    with pytest.raises(
        ConfigError, match=r"nowhere: no such file, and no recipe of that name \(there are .*sample.*\)"
    ):
        read_config("nowhere")


CHOICES = [
    (section, name, value)
    for section, config in Config.model_fields.items()
    for name, knob in config.annotation.model_fields.items()
    if get_origin(knob.annotation) is Literal
    for value in get_args(knob.annotation)
]


@pytest.mark.parametrize(("section", "name", "value"), CHOICES)
def test_every_choice_can_be_given_as_text_as_the_command_line_does(section, name, value, capsys):
    main(["train", "DATA", f"--{section}.{name}", str(value), "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out)[section][name] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {steps: 2001-99-99}", "not readable as YAML: month must be in 1..12"),
        ("train: {steps: !!int ''}", "not readable as YAML"),
        ("train: {steps: !!timestamp x}", "not readable as YAML"),
        ("[" * 3000, "not readable as YAML"),
        ("tr ain: {}", "unknown setting 'tr ain'; did you mean 'train'?"),
        ("train: {'learning rate': 1}", "unknown setting 'train.learning rate'; did you mean 'learning_rate'?"),
    ],
)
def test_values_that_are_not_what_they_say(tmp_path, text, message):
    path = tmp_path / "strange.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert message in str(caught.value)


def test_a_few_words_that_stand_for_gigabytes(tmp_path):
    """Each line holds the one before it nine times over."""
    letters = "abcdefghijkl"
    lines = [f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]" for one, two in pairwise(letters)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(["a: &a [x]", *lines, "data: {brightness: *l}", ""]))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert len(str(caught.value)) < 2100
    path.write_text("data: {brightness: [[x], [x]]}\n")
    with pytest.raises(ConfigError, match=r"data.brightness = \[\['x'\], \['x'\]\]"):
        read_config(path)
