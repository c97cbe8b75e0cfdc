"""Every knob of a run, with a sentence each; a flag of the command line and a key of the YAML file alike."""

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from asymseg.errors import ConfigError

_SHORT = reprlib.Repr()
"""Shows values in a line: a few words of YAML can stand for gigabytes by naming each other."""
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200

RECIPES = Path(__file__).parent / "recipes"


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _none_by_name(cls, values: Any) -> Any:
        """On the command line, "none" takes back what a recipe sets, where there may be nothing."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, knob in cls.model_fields.items() if type(None) in get_args(knob.annotation)}
        nothing = ("none", ["none"])  # the second where there may be several numbers
        return {name: None if name in optional and value in nothing else value for name, value in values.items()}


class ModelConfig(_Section):
    """The network."""

    backbone: str = "resnet50"
    """Any timm model that gives feature maps; a ResNet perhaps with changes, as in resnet101s+ceil."""
    pretrained: bool | Path = True
    """True downloads timm's backbone, a file (timm's, torchvision's) is read for it, false starts from noise; a model's
    folder or a name of `asymseg models` gives the whole network, which may have been trained for other classes."""
    fusion: Literal["afnb", "none"] = "afnb"
    """What joins the two last stages: asymmetric fusion, or nothing (the last stage alone)."""
    context: Literal["apnb", "nonlocal", "nonlocal_wang", "psp", "none"] = "apnb"
    """What brings in the whole image: asymmetric or plain non-local attention, PSPNet's pyramid, or nothing."""
    stages: tuple[int, int] = (-2, -1)
    """Which two feature maps of the backbone are fused, and the second classified; the paper's are the last two."""
    output_stride: Literal[8, 16, 32] = 8
    """Image pixels per feature pixel; smaller is finer and slower."""
    in_channels: int = Field(3, ge=1)
    """Channels of the images."""
    pool_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 3, 6, 8), min_length=1)
    """Grid sizes of the pyramid that samples keys and values."""
    key_channels: int = Field(256, ge=1)
    """Width of queries and keys."""
    value_channels: int = Field(256, ge=1)
    """Width of values."""
    context_channels: int = Field(512, ge=1)
    """Width between the 3x3 convolution and the classifier."""
    merge: Literal["concat", "add", "none"] = "concat"
    """How a block joins context and input: the paper's concatenation, a residual sum, or context alone."""
    aux_channels: int = Field(512, ge=1)
    """Width of the auxiliary classifier."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of channels dropped after the fusion, after the context and in the auxiliary classifier."""
    align_corners: bool = False
    """How the logits are upsampled; true for the authors' weights."""
    refine: bool = False
    """Two more 3x3 convolutions before the classifier, as in mmsegmentation's FCN and non-local networks."""

    @field_validator("output_stride", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """The command line gives text, which pydantic turns into numbers, but not into those of a Literal."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class DataConfig(_Section):
    """Images, masks and augmentation."""

    images: Path | None = None
    """Folder of images, where images and masks do not lie under one data folder."""
    masks: Path | None = None
    """Folder of masks for `images`."""
    holdout: float = Field(0.1, gt=0, lt=1)
    """Share of the training images kept for validation where the data has no val split."""
    check: bool = True
    """Read every image and mask before the first step, so that wrong data is found now and not after an hour."""
    crop_size: tuple[int, int] = (512, 512)
    """Height and width of training crops, in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random scale of a training image."""
    short_side: int | None = Field(None, ge=1)
    """Length that the shorter side of a training image gets before its random scale; none keeps the image's own."""
    aspect: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest random width/height distortion; the authors' 0.9 to 1.1."""
    max_class_share: float = Field(0.75, gt=0, le=1)
    """A crop in which one class covers more than this is drawn again, up to ten times; 1 turns it off."""
    flip: float = Field(0.5, ge=0, le=1)
    """Chance of a left-right flip."""
    photometric: bool = True
    """Random brightness, contrast, saturation and hue."""
    brightness: int = Field(0, ge=0, le=255)
    """Largest random shift of the brightness alone, on the scale 0 to 255; the authors' 10, with photometric off."""
    mean: tuple[float, ...] | None = None
    """Mean per channel on the 0..1 scale; by default the backbone's, or measured where channels are not RGB."""
    std: tuple[Positive, ...] | None = None
    """Standard deviation per channel on the 0..1 scale; by default the backbone's, or measured."""
    workers: int = Field(2, ge=0)
    """Processes that decode and augment; 0 does it in the main process."""
    on_bad_file: Literal["raise", "skip"] = "raise"
    """A training image or mask that cannot be read ends the run, or leaves its place to the next and is counted."""
    cache: Path | None = None
    """Folder that keeps decoded images and masks, so that each file is decoded once; none keeps nothing."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("scale", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"data.{name} must be two numbers above 0, the smaller first, not {low} {high}")
        if min(self.crop_size) < 1:
            raise ValueError(f"data.crop_size must be at least 1 1, not {self.crop_size[0]} {self.crop_size[1]}")
        if (self.images is None) != (self.masks is None):
            raise ValueError("data.images and data.masks go together; give both or neither")
        if (self.mean is None) != (self.std is None):
            raise ValueError("data.mean and data.std go together; give both or neither")
        return self


class TrainConfig(_Section):
    """The training run."""

    steps: int = Field(40_000, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(8, ge=1)
    """Images per step and gradient accumulation part, over all devices together."""
    accumulation: int = Field(1, ge=1)
    """Batches that are one for an optimizer step and its loss; BatchNorm sees them one by one."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum (the paper's) or AdamW."""
    learning_rate: float = Field(0.01, gt=0)
    """Learning rate of the head at its highest."""
    backbone_factor: float = Field(1.0, ge=0)
    """The backbone's learning rate as a share of the head's; 0 freezes its weights and its statistics."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay; biases and normalisation have none, unless decay_all is set."""
    decay_all: bool = False
    """Weight decay on biases and normalisation too, as in the code of the authors, mmsegmentation and PaddleSeg."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate grows from near 0 to its highest."""
    power: float = Field(0.9, gt=0)
    """Exponent of the poly schedule."""
    final_factor: float = Field(0.0, ge=0, le=1)
    """Where the schedule ends, as a share of the highest learning rate."""
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    """Cross-entropy over all pixels, or over the hard ones alone."""
    ohem_threshold: float = Field(0.7, gt=0, le=1)
    """OHEM keeps pixels whose true class has a probability below this."""
    ohem_min_kept: int = Field(100_000, ge=1)
    """OHEM keeps at least this many pixels of a batch on a device."""
    ohem_min_share: float | None = Field(None, gt=0, le=1)
    """The same as a share of the batch's labelled pixels; replaces ohem_min_kept where given."""
    class_weights: tuple[NotNegative, ...] | Literal["median_frequency"] | None = None
    """Weight of each class in the loss: from how often each occurs, or one number per class with commas between."""
    aux_weight: float = Field(0.4, ge=0)
    """Weight of the auxiliary classifier's loss; 0 builds none."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the gradient; a longer one is shortened."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the moving average of the weights, which is then what is validated and saved."""
    sync_batchnorm: bool = True
    """BatchNorm statistics over all processes; without effect on one."""
    freeze_batchnorm: bool = False
    """Keep the backbone's BatchNorm statistics and scale as they are."""
    checkpoint_backbone: bool = False
    """Keep only the maps between the backbone's blocks and compute the others twice: less memory, more time."""
    shard: bool = False
    """Each process keeps its share of the weights, gradients and momenta, not all; without effect on one."""
    channels_last: bool = True
    """Keep the channels of a pixel together in memory, as fast convolutions on CPUs and GPUs want them."""
    validate_every: int = Field(2_000, ge=1)
    """Steps between validations, each of which may give a new best model."""
    save_every: int = Field(1_000, ge=1)
    """Steps between checkpoints to resume from."""
    log_every: int = Field(50, ge=1)
    """Steps between lines in log.jsonl and TensorBoard."""
    late_after: float = Field(60.0, gt=0)
    """Seconds that a process may keep the others waiting before the run says which one it is."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Decides the initial weights, the order of images and every augmentation."""

    @field_validator("class_weights", mode="before")
    @classmethod
    def _from_commas(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) and value not in ("median_frequency", "none") else value


class EvalConfig(_Section):
    """How a model is measured, and how it predicts."""

    mode: Literal["whole", "slide"] = "whole"
    """See an image in one piece, or by overlapping windows."""
    window: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of the windows in pixels of the scaled image; by default the training crop."""
    stride: tuple[PositiveInt, PositiveInt] | None = None
    """From one window to the next, down and across; by default two thirds of the window."""
    weighting: Literal["flat", "tapered"] = "flat"
    """Whether each window counts alike, or less towards its border."""
    scales: tuple[Positive, ...] = Field((1.0,), min_length=1)
    """Sizes at which the network sees an image."""
    flip: bool = False
    """Also see each image mirrored."""
    average: Literal["probabilities", "logits", "mixed"] = "probabilities"
    """What is averaged over windows, scales and flips; mixed is logits over windows, then probabilities."""
    workers: int = Field(2, ge=0)
    """Threads that decode images ahead of the network."""


class Config(_Section):
    """All settings of a training run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    def to_yaml(self) -> str:
        """All settings as YAML, in the order of this file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None)


def make_config(*layers: Mapping[str, Any], where: str = "settings") -> Config:
    """Defaults, overlaid by each layer in turn. A ConfigError names the key, its fault and the nearest name."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            if values is None:
                continue  # a section of a YAML file without a key below it
            if isinstance(values, Mapping) and isinstance(merged.get(section), dict):
                merged[section].update(values)
            else:
                merged[section] = dict(values) if isinstance(values, Mapping) else values
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from None


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_config(name: str | Path) -> dict[str, Any]:
    """A YAML file of settings, or a recipe by name, as nested dictionaries, each key checked. Raises ConfigError."""
    path = Path(name)
    if str(name) in recipe_names() and not path.is_file():
        path = RECIPES / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file, and no recipe of that name (there are {', '.join(recipe_names())}); "
            "asymseg train --print-config writes all settings to start from"
        ) from None
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # All but the first two come of values that are not what their form or tag says, such as the date 2001-99-99.
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as 'model:' and 'train:', found {type(content).__name__}")
    make_config(content, where=str(path))
    return content


def explain(error: ValidationError) -> str:
    """The first fault of a validation in one line, with the nearest name for an unknown key."""
    fault = error.errors()[0]
    if fault["type"] == "extra_forbidden":
        *above, unknown = map(str, fault["loc"])
        section: Any = Config.model_fields.get(above[0]) if above else None
        known = list(section.annotation.model_fields) if section else list(Config.model_fields)
        close = _elsewhere(unknown, 1.0) or difflib.get_close_matches(unknown, known, n=1) or _elsewhere(unknown, 0.8)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"unknown setting {'.'.join([*above, unknown])!r}; {hint}"
    parts = [str(part) for part in fault["loc"] if str(part).isidentifier()]
    key = ".".join(parts[:2])
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{key} = {_SHORT.repr(fault['input'])}: {message}" if key and len(parts) > 1 else message


def _elsewhere(name: str, cutoff: float) -> list[str]:
    """The setting of any section that has nearly this name, as SECTION.NAME; empty where there is none."""
    sections: dict[str, Any] = dict(Config.model_fields)
    full = {key: f"{section}.{key}" for section, field in sections.items() for key in field.annotation.model_fields}
    return [full[key] for key in difflib.get_close_matches(name, full, n=1, cutoff=cutoff)]
