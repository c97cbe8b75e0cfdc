"""One step of a run, and what stays the same over all of them."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3

from asymseg.config import Config
from asymseg.data.dataset import DataSet
from asymseg.data.loader import Batch, TimedBatches, available_workers, training_loader
from asymseg.data.readers import Readers, make_readers
from asymseg.errors import TrainingError
from asymseg.model.info import ModelInfo
from asymseg.training import plan
from asymseg.training.loss import Loss, make_loss
from asymseg.training.optimizer import freeze_batchnorm, make_optimizer
from asymseg.training.state import Progress, Run


@dataclass(frozen=True)
class Work:
    """What stays the same during a run, and the run."""

    run: Run
    losses: tuple[Loss, Loss]
    """The main one and the auxiliary classifier's."""
    info: ModelInfo
    dataset: DataSet
    config: Config
    out: Path
    readers: Readers

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return bool(self.run.accelerator.is_main_process)


def prepare(dataset: DataSet, config: Config, out: Path, accelerator: Accelerator, counts: np.ndarray | None) -> Work:
    """A run that stands before its first step; `counts` are the labelled pixels by training image and class."""
    settings = config.train
    torch.manual_seed(settings.seed)
    network = plan.make_network(config, len(dataset.classes))
    info = plan.model_info(config, dataset)
    weights = plan.class_weights(config, counts, dataset)
    losses = make_loss(settings, None if weights is None else weights.to(accelerator.device))
    model, optimizer = accelerator.prepare(network, make_optimizer(network, settings))
    average = ModelEmaV3(network, decay=settings.ema) if settings.ema else None
    run = Run(network, model, optimizer, average, accelerator, Progress())
    readers = make_readers(dataset.splits["train"], available_workers(config.data))
    return Work(run, losses, info, dataset, config, out, readers)


def remaining_batches(work: Work) -> Iterator[Batch]:
    """The batches of all steps that are left."""
    settings, run = work.config.train, work.run
    return training_loader(
        work.readers.pairs,
        work.dataset.classes,
        work.config.data,
        work.config.model.in_channels,
        work.info.mean,
        work.info.std,
        batch_size=settings.batch_size,
        first_batch=run.progress.step * settings.accumulation,
        num_batches=(settings.steps - run.progress.step) * settings.accumulation,
        seed=settings.seed,
        rank=run.accelerator.process_index,
        world=run.accelerator.num_processes,
        pin_memory=run.accelerator.device.type == "cuda",
        readers=work.readers,
    )


def optimizer_step(work: Work, batches: TimedBatches, step: int) -> tuple[float, tuple[str, ...]]:
    """One step of the optimizer, over one batch or as many as are accumulated.

    Gives their mean loss, and what was wrong with the files that could not be read.
    """
    run, settings = work.run, work.config.train
    accelerator = run.accelerator
    main_loss, aux_loss = work.losses
    # Dropout is a function of seed, step and process alone, so that a resumed run repeats it.
    torch.manual_seed(_mixed_seed(settings.seed, step, accelerator.process_index))
    run.model.train()
    if settings.freeze_batchnorm or settings.backbone_factor == 0:
        freeze_batchnorm(run.network.backbone)  # a frozen backbone keeps its statistics, too
    total, skipped = 0.0, list[str]()
    for _ in range(settings.accumulation):
        batch = next(batches).to(accelerator.device)
        skipped += batch.skipped
        images = batch.images.contiguous(memory_format=torch.channels_last) if settings.channels_last else batch.images
        with accelerator.accumulate(run.model):
            if run.network.aux_classifier is not None:
                logits, aux_logits = run.model(images, with_aux=True)
                loss = main_loss(logits, batch.masks) + settings.aux_weight * aux_loss(aux_logits, batch.masks)
            else:
                loss = main_loss(run.model(images), batch.masks)
            total += _finite_or_stop(loss, step, batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients and settings.clip_norm is not None:
                accelerator.clip_grad_norm_(run.model.parameters(), settings.clip_norm)
            run.optimizer.step()
            run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update(run.network)
    return total / settings.accumulation, tuple(skipped)


def _finite_or_stop(loss: torch.Tensor, step: int, batch: Batch) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise _diverged(f"the loss of step {step + 1} is {value} on {', '.join(batch.names)}")
    return value


def finite_weights_or_stop(run: Run) -> None:
    """Nothing is saved over a good state that would only fail in the next step."""
    if not all(bool(tensor.isfinite().all()) for tensor in run.network.state_dict().values()):
        raise _diverged(f"step {run.progress.step} made weights that are not finite")


def _diverged(what: str) -> TrainingError:
    return TrainingError(f"{what}; lower train.learning_rate, or set train.clip_norm")


def _mixed_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) & sys.maxsize
