"""The training loop."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from timm.utils import ModelEmaV3

from asymseg.atomic import atomic_file, surviving_folder
from asymseg.config import Config
from asymseg.data.dataset import DataSet
from asymseg.data.loader import Batch, TimedBatches, training_loader
from asymseg.data.measure import waiting_advice
from asymseg.errors import TrainingError
from asymseg.evaluation.evaluate import Evaluation, evaluate, measure
from asymseg.evaluation.metrics import scores
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.model.memory import reused_memory
from asymseg.prediction.predict import Predictor
from asymseg.training import plan
from asymseg.training.log import RunLog, read_log
from asymseg.training.loss import Loss, make_loss
from asymseg.training.optimizer import freeze_batchnorm, learning_rate, make_optimizer, set_learning_rate
from asymseg.training.state import Progress, Run, load_last, save_last


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
        resume: Go on from `out/last` where there is one. `config` may differ from the run's `config.yaml`; what does
            is said before the first step. Batch size, accumulation and seed decide which images come next.
        console: Where progress is shown; standard error where None.

    Raises:
        DataError: Wrong data, with the file and the cure.
        ConfigError: Settings that contradict the data or this machine.
        CheckpointError: A state that cannot be resumed.
        TrainingError: A loss that is not finite, or a folder that holds another run.
    """
    config = config or Config()
    settings = config.train
    console = console or Console(stderr=True, soft_wrap=True)
    out = Path(out)
    accelerator = plan.make_accelerator(settings)
    plan.claim_folder(out, resume)
    first = accelerator.is_main_process

    dataset = data if isinstance(data, DataSet) else plan.open_data(data, config)
    counts = plan.check_data(dataset, config, console if first else None)
    torch.manual_seed(settings.seed)
    network = plan.make_network(config, len(dataset.classes))
    info = plan.model_info(config, dataset)
    weights = plan.class_weights(config, counts, dataset)
    losses = make_loss(settings, None if weights is None else weights.to(accelerator.device))
    model, optimizer = accelerator.prepare(network, make_optimizer(network, settings))
    average = ModelEmaV3(network, decay=settings.ema) if settings.ema else None
    run = Run(network, model, optimizer, average, accelerator, Progress())
    note = load_last(out / "last", run) if resume else None
    progress = run.progress
    if first and note is not None:
        console.print(f"note: {note}", highlight=False, markup=False)
    if first and resume and progress.step == 0:
        console.print(f"note: no run in {out} to go on with; a new one begins", highlight=False, markup=False)
    if first:
        for change in plan.changed_settings(out, config):
            console.print(f"changed from here on: {change}", highlight=False, markup=False)
        with atomic_file(out / "config.yaml") as temporary:
            temporary.write_text(config.to_yaml(), encoding="utf-8")
        plan.announce(console, dataset, network, config, accelerator, progress.step, out)

    batches = TimedBatches(
        training_loader(
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
            pin_memory=accelerator.device.type == "cuda",
        ),
        settings.batch_size,
    )
    advised = False
    with RunLog(out, settings.steps, progress.step, console, first) as log, reused_memory(accelerator.device):
        for step in range(progress.step, settings.steps):
            rate = learning_rate(step, settings)
            set_learning_rate(run.optimizer, rate)
            loss = _optimizer_step(run, batches, losses, step, config, out)
            progress.step = step + 1
            progress.losses.append(loss)
            log.step(progress.step, loss, *batches.speed())

            logging, validating, saving = (
                progress.step % every == 0 or progress.step == settings.steps
                for every in (settings.log_every, settings.validate_every, settings.save_every)
            )
            if logging:
                log.train(progress.step, float(np.mean(progress.losses)), rate, *batches.speed())
                progress.losses.clear()
                if first and not advised:
                    advised = _advise(batches, dataset, config, info, console)
                batches.restart()
            if validating or saving:
                _finite_weights_or_stop(run, out)
            if validating:
                result = _validate(run, info, dataset, config)
                better = result.scores.miou > progress.best_miou or not (out / "best").exists()
                log.validation(progress.step, result.scores.miou, result.scores.pixel_accuracy, better)
                if better:
                    progress.best_miou, progress.best_step = result.scores.miou, progress.step
                    if first:
                        save_model(out / "best", run.evaluated, _with_metrics(info, result, progress.step))
                batches.restart()
            if saving and first:
                save_last(out / "last", run, info)

    accelerator.wait_for_everyone()
    best = evaluate(
        out / "best",
        dataset,
        "val",
        out=out if first else None,
        history=read_log(out),
        device=str(accelerator.device),
        workers=config.eval.workers,
    )
    if first:
        console.print(
            f"best model (step {progress.best_step}): validation mIoU {best.scores.miou:.4f}; "
            f"see {out / 'report.html'}; predict with: asymseg predict {out / 'best'} IMAGE -o OUT",
            markup=False,
        )
    return best


def _advise(batches: TimedBatches, dataset: DataSet, config: Config, info: ModelInfo, console: Console) -> bool:
    """Say what would help where much of the time goes on waiting for images; whether it was said."""
    _, share = batches.speed()
    pairs, channels = dataset.splits["train"], config.model.in_channels
    advice = waiting_advice(share, pairs, dataset.classes, config.data, channels, info.mean, info.std)
    if advice is not None:
        console.print(f"[yellow]slow:[/yellow] {advice}", highlight=False)
    return advice is not None


def _optimizer_step(
    run: Run, batches: TimedBatches, losses: tuple[Loss, Loss], step: int, config: Config, out: Path
) -> float:
    """One step of the optimizer, over one batch or as many as are accumulated; gives their mean loss."""
    settings, accelerator = config.train, run.accelerator
    main_loss, aux_loss = losses
    # Dropout is a function of seed, step and process alone, so that a resumed run repeats it.
    torch.manual_seed(_mixed_seed(settings.seed, step, accelerator.process_index))
    run.model.train()
    if settings.freeze_batchnorm or settings.backbone_factor == 0:
        freeze_batchnorm(run.network.backbone)  # a frozen backbone keeps its statistics, too
    total = 0.0
    for _ in range(settings.accumulation):
        batch = next(batches).to(accelerator.device)
        images = batch.images.contiguous(memory_format=torch.channels_last) if settings.channels_last else batch.images
        with accelerator.accumulate(run.model):
            if run.network.aux_classifier is not None:
                logits, aux_logits = run.model(images, with_aux=True)
                loss = main_loss(logits, batch.masks) + settings.aux_weight * aux_loss(aux_logits, batch.masks)
            else:
                loss = main_loss(run.model(images), batch.masks)
            total += _finite_or_stop(loss, step, batch, out)
            accelerator.backward(loss)
            if accelerator.sync_gradients and settings.clip_norm is not None:
                accelerator.clip_grad_norm_(run.model.parameters(), settings.clip_norm)
            run.optimizer.step()
            run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update(run.network)
    return total / settings.accumulation


def _validate(run: Run, info: ModelInfo, dataset: DataSet, config: Config) -> Evaluation:
    """Scores on the validation images; every process measures its share and all know the sum."""
    accelerator = run.accelerator
    pairs = dataset.splits["val"][accelerator.process_index :: accelerator.num_processes]
    with _plain_forward(run.evaluated) as network:
        part = measure(Predictor(network, info, str(accelerator.device)), pairs, dataset, config.eval.workers)
    if accelerator.num_processes == 1:
        return part
    matrix = accelerator.reduce(part.matrix.to(accelerator.device)).cpu()
    return Evaluation(matrix, scores(matrix), part.images)


@contextmanager
def _plain_forward(network: ANNNet) -> Iterator[ANNNet]:
    """The network without the mixed precision that accelerate wraps its forward in: as it will be saved and used."""
    wrapped = vars(network).pop("forward", None)
    try:
        yield network
    finally:
        if wrapped is not None:
            vars(network)["forward"] = wrapped


def _with_metrics(info: ModelInfo, result: Evaluation, step: int) -> ModelInfo:
    """The same, with what was measured in this step."""
    measured = {"miou": result.scores.miou, "pixel_accuracy": result.scores.pixel_accuracy}
    known = {name: value if math.isfinite(value) else None for name, value in measured.items()}
    return replace(info, metrics={"split": "val", "step": step, **known})


def _finite_or_stop(loss: torch.Tensor, step: int, batch: Batch, out: Path) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise _diverged(f"the loss of step {step + 1} is {value} on {', '.join(batch.names)}", out)
    return value


def _finite_weights_or_stop(run: Run, out: Path) -> None:
    """Nothing is saved over a good state that would only fail in the next step."""
    if not all(bool(tensor.isfinite().all()) for tensor in run.network.state_dict().values()):
        raise _diverged(f"step {run.progress.step} made weights that are not finite", out)


def _diverged(what: str, out: Path) -> TrainingError:
    kept = f"the last good state is {out / 'last'}" if surviving_folder(out / "last") else "nothing was saved yet"
    return TrainingError(f"{what}; {kept}; lower train.learning_rate, or set train.clip_norm, and go on with --resume")


def _mixed_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) & sys.maxsize
