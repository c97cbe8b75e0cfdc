"""The training loop."""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.markup import escape
from timm.utils import ModelEmaV3
from torch import nn

from asymseg.atomic import atomic_file, surviving_folder
from asymseg.config import Config, TrainConfig
from asymseg.data.dataset import DataSet, check_masks, count_warnings, median_frequency_weights, open_dataset
from asymseg.data.loader import Batch, measure_normalisation, training_loader
from asymseg.errors import ConfigError, TrainingError
from asymseg.evaluation.evaluate import Evaluation, evaluate, measure
from asymseg.model.annnet import ANNNet
from asymseg.model.backbone import backbone_normalisation
from asymseg.model.checkpoint import ModelInfo, parameter_count, save_model
from asymseg.prediction.predict import Predictor
from asymseg.training.log import RunLog, read_log
from asymseg.training.loss import make_loss
from asymseg.training.optimizer import freeze_batchnorm, learning_rate, make_optimizer, set_learning_rate
from asymseg.training.state import Progress, evaluated_network, load_last, save_last


def train(
    data: str | Path | DataSet | None = None,
    config: Config | None = None,
    *,
    out: str | Path = "runs/train",
    resume: bool = False,
    console: Console | None = None,
) -> Evaluation:
    """Train a network and return its best model's scores on the validation images.

    `out` then holds `best/` and `last/` (model folders), `config.yaml`, `log.jsonl`, `tensorboard/`, `metrics.json` and
    `report.html`.

    Args:
        data: A data set or its folder; None where the configuration names folders of images and masks.
        config: All settings; defaults where None.
        out: The run's folder.
        resume: Go on from `out/last` where there is one.
        console: Where progress is shown; standard error where None.

    Raises:
        DataError: Wrong data, with the file and the cure.
        ConfigError: Settings that contradict the data or this machine.
        CheckpointError: A state that cannot be resumed.
        TrainingError: A loss that is not finite, or a folder that holds another run.
    """
    config = config or Config()
    console = console or Console(stderr=True, soft_wrap=True)
    out = Path(out)
    settings = config.train
    accelerator = _make_accelerator(settings)
    _claim_folder(out, resume)

    dataset = data if isinstance(data, DataSet) else _open_data(data, config)
    counts = _check_data(dataset, config, console if accelerator.is_main_process else None)
    torch.manual_seed(settings.seed)
    network = make_network(config, len(dataset.classes))
    info = _model_info(config, dataset)
    weights = _class_weights(settings, counts, dataset)
    main_loss, aux_loss = make_loss(settings, None if weights is None else weights.to(accelerator.device))
    optimizer = make_optimizer(network, settings)
    model, optimizer = accelerator.prepare(network, optimizer)
    average = ModelEmaV3(network, decay=settings.ema) if settings.ema else None
    progress = Progress()
    if resume:
        progress = load_last(out / "last", network, optimizer, average, accelerator) or progress
    if accelerator.is_main_process:
        with atomic_file(out / "config.yaml") as temporary:
            temporary.write_text(config.to_yaml(), encoding="utf-8")
        _announce(console, dataset, network, config, accelerator, progress.step, out)

    loader = training_loader(
        dataset.splits["train"],
        dataset.classes,
        config.data,
        config.model.in_channels,
        info.mean,
        info.std,
        batch_size=settings.batch_size,
        first_batch=progress.step * settings.accumulation,
        num_batches=(settings.steps - progress.step) * settings.accumulation,
        seed=settings.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    batches = _Timed(iter(loader))
    log = RunLog(out, settings.steps, progress.step, console, accelerator.is_main_process)
    with log:
        while progress.step < settings.steps:
            step = progress.step
            # Dropout is a function of seed, step and process alone, so that a resumed run repeats it.
            torch.manual_seed(_mixed_seed(settings.seed, step, accelerator.process_index))
            _to_training_mode(model, network, config)
            rate = learning_rate(step, settings)
            set_learning_rate(optimizer, rate)
            loss_of_step = 0.0
            for _ in range(settings.accumulation):
                batch = next(batches).to(accelerator.device)
                with accelerator.accumulate(model):
                    images = batch.images
                    if settings.channels_last:
                        images = images.contiguous(memory_format=torch.channels_last)
                    if network.aux_classifier is not None:
                        logits, aux_logits = model(images, with_aux=True)
                        loss = main_loss(logits, batch.masks) + settings.aux_weight * aux_loss(aux_logits, batch.masks)
                    else:
                        loss = main_loss(model(images), batch.masks)
                    loss_of_step += _finite_or_stop(loss, step, batch, out) / settings.accumulation
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and settings.clip_norm is not None:
                        accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            if average is not None:
                average.update(network)
            progress.step += 1

            progress.losses.append(loss_of_step)
            log.step(progress.step, loss_of_step, *batches.speed(settings))
            if progress.step % settings.log_every == 0 or progress.step == settings.steps:
                log.train(progress.step, float(np.mean(progress.losses)), rate, *batches.speed(settings, restart=True))
                progress.losses.clear()
            validating = progress.step % settings.validate_every == 0 or progress.step == settings.steps
            saving = progress.step % settings.save_every == 0 or progress.step == settings.steps
            if validating or saving:
                _finite_weights_or_stop(network, progress.step, out)
            if validating:
                result = _validate(evaluated_network(network, average), info, dataset, config, accelerator)
                better = result.scores.miou > progress.best_miou or not (out / "best").exists()
                log.validation(progress.step, result.scores.miou, result.scores.pixel_accuracy, better)
                if better:
                    progress.best_miou, progress.best_step = result.scores.miou, progress.step
                    if accelerator.is_main_process:
                        save_model(
                            out / "best", evaluated_network(network, average), _with_metrics(info, result, progress)
                        )
                batches.restart()
            if saving and accelerator.is_main_process:
                save_last(out / "last", progress, network, optimizer, average, accelerator, info)

    accelerator.wait_for_everyone()
    best = evaluate(
        out / "best",
        dataset,
        "val",
        out=out if accelerator.is_main_process else None,
        history=read_log(out),
        device=str(accelerator.device),
        workers=config.eval.workers,
    )
    if accelerator.is_main_process:
        console.print(
            f"best model (step {progress.best_step}): validation mIoU {best.scores.miou:.4f}; "
            f"see {out / 'report.html'}; predict with: asymseg predict {out / 'best'} IMAGE -o OUT",
            markup=False,
        )
    return best


def make_network(config: Config, num_classes: int) -> ANNNet:
    """The network that a configuration describes."""
    settings = config.model.model_dump()
    if config.train.aux_weight == 0:
        settings["aux_channels"] = 0
    network = ANNNet(num_classes, **settings)
    if config.train.backbone_factor == 0:
        network.backbone.requires_grad_(False)
    if config.train.freeze_batchnorm:
        freeze_batchnorm(network.backbone)
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if config.train.sync_batchnorm and torch.cuda.is_available() and torch.distributed.is_initialized():
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return network


class _Timed:
    """An iterator that knows what share of the time was spent waiting for it."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches = batches
        self.restart()

    def restart(self) -> None:
        self.began, self.waited, self.taken = time.monotonic(), 0.0, 0

    def __next__(self) -> Batch:
        asked = time.monotonic()
        batch = next(self.batches)
        self.waited += time.monotonic() - asked
        self.taken += 1
        return batch

    def speed(self, settings: TrainConfig, restart: bool = False) -> tuple[float, float]:
        """Images per second over all processes, and the share of the time spent waiting, since the last restart."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        facts = (self.taken * settings.batch_size / elapsed, self.waited / elapsed)
        if restart:
            self.restart()
        return facts


def _make_accelerator(settings: TrainConfig) -> Accelerator:
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision = fp16 needs a CUDA device; use bf16 or fp32 here")
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[settings.precision]
    AcceleratorState._reset_state()  # it is one per process and would refuse a second run of another precision
    return Accelerator(mixed_precision=precision, gradient_accumulation_steps=settings.accumulation)


def _claim_folder(out: Path, resume: bool) -> None:
    if not resume and ((out / "last").exists() or (out / "log.jsonl").exists()):
        raise TrainingError(f"{out}: holds a run already; go on with it by --resume, or name another folder by --out")


def _open_data(data: str | Path | None, config: Config) -> DataSet:
    if (data is None) == (config.data.images is None):
        raise ConfigError("give either a data folder or both --images and --masks")
    return open_dataset(
        None if data is None else Path(data),
        images=config.data.images,
        masks=config.data.masks,
        holdout=config.data.holdout,
    )


def _check_data(dataset: DataSet, config: Config, console: Console | None) -> np.ndarray | None:
    """Labelled pixels per training image and class, after a look at every mask; None where not asked for."""
    for split in ("train", "val"):
        if not dataset.splits.get(split):
            raise ConfigError(f"training needs a {split!r} part; the data has {', '.join(dataset.splits)}")
    if not config.data.check:
        return None
    counts = {}
    for split in ("train", "val"):
        counts[split] = check_masks(dataset.splits[split], dataset.classes, max(1, config.data.workers))
    if console is not None:
        for line in count_warnings(counts, dataset):
            console.print(f"[yellow]warning[/yellow] {escape(line)}", highlight=False)
    return counts["train"]


def _class_weights(settings: TrainConfig, counts: np.ndarray | None, dataset: DataSet) -> torch.Tensor | None:
    if settings.class_weights is None:
        return None
    if settings.class_weights == "median_frequency":
        if counts is None:
            counts = check_masks(dataset.splits["train"], dataset.classes, 1)
        return torch.tensor(median_frequency_weights(counts))
    if len(settings.class_weights) != len(dataset.classes):
        raise ConfigError(
            f"train.class_weights has {len(settings.class_weights)} numbers for {len(dataset.classes)} classes; "
            "give one each"
        )
    return torch.tensor(settings.class_weights)


def _model_info(config: Config, dataset: DataSet) -> ModelInfo:
    """What the model folder will say beside the weights."""
    channels = config.model.in_channels
    if config.data.mean is not None and config.data.std is not None:
        if not len(config.data.mean) == len(config.data.std) == channels:
            raise ConfigError(f"data.mean and data.std need one number for each of the {channels} channels")
        mean, std = config.data.mean, config.data.std
    elif channels == 3:
        mean, std = backbone_normalisation(config.model.backbone)
    else:
        mean, std = measure_normalisation(dataset.splits["train"], channels)
    return ModelInfo(dataset.classes, mean, std, scales=config.eval.scales, flip=config.eval.flip)


def _with_metrics(info: ModelInfo, result: Evaluation, progress: Progress) -> ModelInfo:
    metrics: dict[str, Any] = {
        "split": "val",
        "step": progress.step,
        "miou": result.scores.miou if math.isfinite(result.scores.miou) else None,
        "pixel_accuracy": result.scores.pixel_accuracy if math.isfinite(result.scores.pixel_accuracy) else None,
    }
    return ModelInfo(**{**vars(info), "metrics": metrics})


def _announce(
    console: Console, dataset: DataSet, network: ANNNet, config: Config, accelerator: Accelerator, done: int, out: Path
) -> None:
    """Say what will happen before the first step."""
    settings = config.train
    images = {split: len(pairs) for split, pairs in dataset.splits.items()}
    epochs = settings.steps * settings.batch_size * settings.accumulation / images["train"]
    for note in dataset.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    model = config.model
    for line in (
        "images      " + ", ".join(f"{count} {split}" for split, count in images.items()),
        f"classes     {len(dataset.classes)}: {', '.join(dataset.classes.names)}",
        f"network     {model.backbone}, fusion {model.fusion}, context {model.context}, "
        f"output stride {model.output_stride}, {parameter_count(network) / 1e6:.1f} M parameters",
        f"steps       {settings.steps} ({epochs:.1f} epochs)" + (f", going on after step {done}" if done else ""),
        f"batch       {settings.batch_size} x {config.data.crop_size[0]}x{config.data.crop_size[1]} on "
        f"{accelerator.num_processes} {accelerator.device.type} device(s), accumulation {settings.accumulation}, "
        f"{settings.precision}",
        f"learning    {settings.optimizer}, rate {settings.learning_rate:g}, "
        f"backbone {settings.learning_rate * settings.backbone_factor:g}, poly {settings.power:g}, "
        f"warm-up {settings.warmup_steps}",
        f"writes to   {out}",
    ):
        console.print(line, highlight=False, markup=False)
    per_device = settings.batch_size // accelerator.num_processes
    synchronised = settings.sync_batchnorm and accelerator.device.type == "cuda"
    if (settings.batch_size if synchronised else per_device) < 4 and not settings.freeze_batchnorm:
        console.print(
            f"[yellow]warning[/yellow] BatchNorm sees {per_device} image(s) at a time, fewer than 4: poor statistics; "
            "raise train.batch_size, or set train.freeze_batchnorm",
            highlight=False,
        )


def _to_training_mode(model: nn.Module, network: ANNNet, config: Config) -> None:
    model.train()
    if config.train.freeze_batchnorm or config.train.backbone_factor == 0:
        freeze_batchnorm(network.backbone)  # a frozen backbone keeps its statistics, too


def _finite_or_stop(loss: torch.Tensor, step: int, batch: Batch, out: Path) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise _diverged(f"the loss of step {step + 1} is {value} on {', '.join(batch.names)}", out)
    return value


def _finite_weights_or_stop(network: nn.Module, step: int, out: Path) -> None:
    """Nothing is saved over a good state that would only fail in the next step."""
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise _diverged(f"step {step} made weights that are not finite", out)


def _diverged(what: str, out: Path) -> TrainingError:
    kept = f"the last good state is {out / 'last'}" if surviving_folder(out / "last") else "nothing was saved yet"
    return TrainingError(
        f"{what}; {kept}; lower train.learning_rate, or set train.clip_norm, and go on with --resume"
    )


def _validate(
    network: ANNNet, info: ModelInfo, dataset: DataSet, config: Config, accelerator: Accelerator
) -> Evaluation:
    """Scores on the validation images; every process measures its share and all know the sum."""
    from asymseg.evaluation.metrics import scores

    pairs = dataset.splits["val"][accelerator.process_index :: accelerator.num_processes]
    part = measure(Predictor(network, info, str(accelerator.device)), pairs, dataset, config.eval.workers)
    if not config.train.channels_last:
        network.to(memory_format=torch.contiguous_format)  # a predictor has the other layout
    if accelerator.num_processes == 1:
        return part
    matrix = accelerator.reduce(part.matrix.to(accelerator.device)).cpu()
    return Evaluation(matrix, scores(matrix), part.images)


def _mixed_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) & sys.maxsize
