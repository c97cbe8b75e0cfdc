"""Everything before the first step: folder, data, network, and the words that say what will happen."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.markup import escape
from timm.layers import convert_sync_batchnorm

from asymseg.config import Config, TrainConfig, make_config, read_config
from asymseg.data.audit.quick import quick_check
from asymseg.data.dataset import DataSet, check_pairs, median_frequency_weights, open_dataset
from asymseg.data.loader import measure_normalisation
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.backbone import TimmBackbone, backbone_normalisation
from asymseg.model.checkpoint import parameter_count
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.model.synchronised import synchronise_batchnorm
from asymseg.training.beginning import names_model
from asymseg.training.optimizer import freeze_batchnorm
from asymseg.training.sharding import shares_out


def changed_settings(out: Path, config: Config) -> list[str]:
    """What differs from the settings that the run in `out` was begun with, a line each."""
    if not (out / "config.yaml").is_file():
        return []
    before = make_config(read_config(out / "config.yaml")).model_dump(mode="json")
    now = config.model_dump(mode="json")
    return [
        f"{section}.{name}: {before[section][name]} -> {value}"
        for section, values in now.items()
        for name, value in values.items()
        if before[section][name] != value
    ]


def make_accelerator(settings: TrainConfig) -> Accelerator:
    """Devices, processes, precision and accumulation."""
    if settings.shard and settings.precision == "fp16":
        raise ConfigError("train.shard = true goes with train.precision = fp32 or bf16, not with fp16; use bf16")
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision = fp16 needs a CUDA device; use bf16 or fp32 here")
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise ConfigError(
                f"accelerate is set up for {name}, but asymseg shares a network out by itself; launch it with "
                "--multi_gpu or torchrun, and add --train.shard true"
            )
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[settings.precision]
    AcceleratorState._reset_state()  # it is one per process and would refuse a second run of another precision
    # Without this word accelerate would let processes that torchrun started on a machine of CPUs train each for itself.
    cpu = "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    return Accelerator(mixed_precision=precision, gradient_accumulation_steps=settings.accumulation, cpu=cpu)


def open_data(data: str | Path | None, config: Config) -> DataSet:
    """The data folder, or the two folders that the configuration names."""
    if (data is None) == (config.data.images is None):
        raise ConfigError("give either a data folder or both --images and --masks")
    return open_dataset(
        None if data is None else Path(data),
        images=config.data.images,
        masks=config.data.masks,
        holdout=config.data.holdout,
    )


def check_data(dataset: DataSet, config: Config, console: Console | None) -> np.ndarray | None:
    """Labelled pixels per training image and class, after a look at every mask; None where not asked for."""
    for split in ("train", "val"):
        if not dataset.splits.get(split):
            raise ConfigError(f"training needs a {split!r} part; the data has {', '.join(dataset.splits)}")
    if console is not None:
        for note in dataset.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
    if not config.data.check:
        return None
    workers, silent = max(1, config.data.workers), Console(quiet=True)
    with (console or silent).status("reading every image and mask once"):
        tolerated = ("train",) if config.data.on_bad_file == "skip" else ()
        counts, warnings = quick_check(
            dataset, ("train", "val"), config.model.in_channels, workers, tolerated=tolerated
        )
    if console is not None:
        for line in warnings:
            console.print(f"[yellow]warning:[/yellow] {escape(line)}", highlight=False)
    return np.asarray(counts["train"])


def class_weights(config: Config, counts: np.ndarray | None, dataset: DataSet) -> torch.Tensor | None:
    """One weight per class, given or by median frequency; None for equal ones."""
    settings = config.train
    if settings.class_weights is None:
        return None
    if settings.class_weights == "median_frequency":
        if counts is None:
            counts = check_pairs(dataset.splits["train"], dataset.classes, config.model.in_channels, 1)
        return torch.tensor(median_frequency_weights(counts))
    if len(settings.class_weights) != len(dataset.classes):
        raise ConfigError(
            f"train.class_weights has {len(settings.class_weights)} numbers for {len(dataset.classes)} classes; "
            "give one each"
        )
    return torch.tensor(settings.class_weights)


def make_network(config: Config, num_classes: int) -> ANNNet:
    """The network that a configuration describes."""
    settings = config.model.model_dump()
    if names_model(config.model.pretrained):
        settings["pretrained"] = False  # its weights come later, with those of the head
    if config.train.aux_weight == 0:
        settings["aux_channels"] = 0
    network = ANNNet(num_classes, **settings)
    if config.train.backbone_factor == 0:
        network.backbone.requires_grad_(False)
    if config.train.freeze_batchnorm:
        freeze_batchnorm(network.backbone)
    freeze_unused(network, config.model.in_channels)
    if config.train.checkpoint_backbone and isinstance(network.backbone, TimmBackbone):
        network.backbone.checkpointing = True
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if config.train.sync_batchnorm and torch.distributed.is_initialized():
        if torch.cuda.is_available():
            return synchronise_on_cuda(network)
        synchronise_batchnorm(network)
    return network


def freeze_unused(network: ANNNet, in_channels: int) -> None:
    """Let weights that lead nowhere rest: several processes would wait for their gradients. HRNet has such."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    image, training = torch.zeros(1, in_channels, 64, 64), network.training
    network.eval()  # or BatchNorm would count the image among the data
    outputs = (network(image),) if network.aux_classifier is None else network(image, with_aux=True)
    gradients = torch.autograd.grad([output.sum() for output in outputs], weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)
    network.train(training)


def synchronise_on_cuda(network: ANNNet) -> ANNNet:
    """The network with torch's BatchNorm over all processes; timm's way, since torch's loses timm's activations."""
    converted = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    assert isinstance(converted, ANNNet)
    return converted


def model_info(config: Config, dataset: DataSet, begun: ModelInfo | None = None) -> ModelInfo:
    """What the model folder will say beside the weights; `begun` is what the model said that the run begins with."""
    channels = config.model.in_channels
    if config.data.mean is not None and config.data.std is not None:
        if not len(config.data.mean) == len(config.data.std) == channels:
            raise ConfigError(f"data.mean and data.std need one number for each of the {channels} channels")
        mean, std = config.data.mean, config.data.std
    elif begun is not None:
        mean, std = begun.mean, begun.std
    elif channels == 3:
        mean, std = backbone_normalisation(config.model.backbone)
    else:
        mean, std = measure_normalisation(dataset.splits["train"], channels)
    seen = config.eval
    seeing = Seeing(
        mode=seen.mode,
        window=seen.window or config.data.crop_size,
        stride=seen.stride,
        weighting=seen.weighting,
        scales=seen.scales,
        flip=seen.flip,
        average=seen.average,
    )
    of_what = f" of {dataset.origin.name}" if dataset.origin is not None else ""
    source = f"trained by asymseg on {len(dataset.splits['train'])} images{of_what}"
    info = ModelInfo(dataset.classes, mean, std, seeing=seeing, holdout=config.data.holdout, source=source)
    if begun is not None:
        info = replace(info, source=f"{source}, from {config.model.pretrained}", license=begun.license)
    return info


def announce(
    console: Console, dataset: DataSet, network: ANNNet, config: Config, accelerator: Accelerator, done: int, out: Path
) -> None:
    """Say what will happen before the first step."""
    settings = config.train
    images = {split: len(pairs) for split, pairs in dataset.splits.items()}
    epochs = settings.steps * settings.batch_size * settings.accumulation / images["train"]
    model = config.model
    for line in (
        "images      " + ", ".join(f"{count} {split}" for split, count in images.items()),
        f"classes     {len(dataset.classes)}: {', '.join(dataset.classes.names)}",
        f"network     {model.backbone}, fusion {model.fusion}, context {model.context}, "
        f"output stride {model.output_stride}, {parameter_count(network) / 1e6:.1f} M parameters",
        f"steps       {settings.steps} ({epochs:.1f} epochs)" + (f", going on after step {done}" if done else ""),
        f"batch       {settings.batch_size} x {config.data.crop_size[0]}x{config.data.crop_size[1]} on "
        f"{accelerator.num_processes} {accelerator.device.type} device(s), accumulation {settings.accumulation}, "
        f"{settings.precision}" + (", each with a share of the network" if shares_out(settings, accelerator) else ""),
        f"learning    {settings.optimizer}, rate {settings.learning_rate:g}, "
        f"backbone {settings.learning_rate * settings.backbone_factor:g}, poly {settings.power:g}, "
        f"warm-up {settings.warmup_steps}",
        *([f"begins with {model.pretrained}"] if isinstance(model.pretrained, Path) else []),
        f"writes to   {out}",
    ):
        console.print(line, highlight=False, markup=False)
    seen = settings.batch_size if settings.sync_batchnorm else settings.batch_size // accelerator.num_processes
    if seen < 4:
        cure = "raise train.batch_size" + ("" if settings.freeze_batchnorm else ", or set train.freeze_batchnorm")
        console.print(
            f"[yellow]warning:[/yellow] BatchNorm sees {seen} image(s) at a time, fewer than 4: poor statistics; "
            f"{cure}",
            highlight=False,
        )
