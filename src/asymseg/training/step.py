"""One step of a run, and what stays the same over all of them."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from asymseg.config import Config
from asymseg.data.dataset import DataSet
from asymseg.data.loader import Batch, TimedBatches, available_workers, training_loader
from asymseg.data.readers import Readers, make_readers
from asymseg.errors import TrainingError
from asymseg.model.info import ModelInfo
from asymseg.training import plan
from asymseg.training.beginning import begin_with, names_model
from asymseg.training.loss import TINY, Loss, make_loss
from asymseg.training.optimizer import freeze_batchnorm
from asymseg.training.run import Run
from asymseg.training.sharding import own_part, place
from asymseg.training.watch import Watch


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
    watch: Watch

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return bool(self.run.accelerator.is_main_process)


def prepare(
    dataset: DataSet, config: Config, out: Path, accelerator: Accelerator, counts: np.ndarray | None, watch: Watch
) -> Work:
    """A run that stands before its first step; `counts` are the labelled pixels by training image and class."""
    settings = config.train
    torch.manual_seed(settings.seed)
    network = plan.make_network(config, len(dataset.classes))
    source = config.model.pretrained
    begun = begin_with(source, network, dataset.classes) if names_model(source) else None
    info = plan.model_info(config, dataset, begun)
    weights = plan.class_weights(config, counts, dataset)
    losses = make_loss(settings, None if weights is None else weights.to(accelerator.device))
    run = place(network, config, accelerator)
    readers = make_readers(dataset.splits["train"], available_workers(config.data))
    return Work(run, losses, info, dataset, config, out, readers, watch)


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
    """One step of the optimizer, over one batch or as many as are accumulated, on all processes together.

    Gives its loss, and what was wrong with the files that could not be read; both are of all processes, on each.
    """
    run, settings = work.run, work.config.train
    accelerator = run.accelerator
    # Dropout is a function of seed, step and process alone, so that a resumed run repeats it.
    torch.manual_seed(_mixed_seed(settings.seed, step, accelerator.process_index))
    run.model.train()
    if settings.freeze_batchnorm or settings.backbone_factor == 0:
        freeze_batchnorm(run.network.backbone)  # a frozen backbone keeps its statistics, too
    work.watch.at(f"step {step + 1}: reading images")
    parts = [next(batches) for _ in range(settings.accumulation)]
    work.watch.at(f"step {step + 1}: computing")
    divisors, skipped = _of_whole_step(work, parts)
    # Accelerate divides by the one, and takes the mean of gradients over the other.
    scale = settings.accumulation * accelerator.num_processes
    value = 0.0
    for part in parts:
        batch = part.to(accelerator.device)
        images = batch.images.contiguous(memory_format=torch.channels_last) if settings.channels_last else batch.images
        with accelerator.accumulate(run.model):
            if run.network.aux_classifier is not None:
                outputs = run.model(images, with_aux=True)
            else:
                outputs = (run.model(images),)
            loss, whole = _share_of_loss(work, outputs, batch.masks, divisors)
            value += _finite_or_stop(whole, loss, step, batch)
            accelerator.backward(loss * scale)
            if accelerator.sync_gradients and settings.clip_norm is not None:
                accelerator.clip_grad_norm_(run.model.parameters(), settings.clip_norm)
            run.optimizer.step()
            run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update(run.network)
    return value, skipped


def _of_whole_step(work: Work, parts: list[Batch]) -> tuple[list[float | None], tuple[str, ...]]:
    """What each loss is divided by, where labels alone say so; and what was wrong with files that were skipped."""
    accelerator = work.run.accelerator
    known = [loss.divisor for loss in work.losses]
    sums = [sum(float(divisor(part.masks)) for part in parts) if divisor else 0.0 for divisor in known]
    *sums, bad = _over_processes(accelerator, [*sums, float(sum(len(part.skipped) for part in parts))])
    divisors = [total if divisor else None for total, divisor in zip(sums, known, strict=True)]
    if not bad:
        return divisors, ()
    told = gather_object([[part.skipped for part in parts]])  # processes parts messages
    return divisors, tuple(message for part in zip(*told, strict=True) for share in part for message in share)


def _share_of_loss(
    work: Work, outputs: tuple[torch.Tensor, ...], masks: torch.Tensor, divisors: list[float | None]
) -> tuple[torch.Tensor, float]:
    """What one part on this process adds to the loss of the step, and what it adds on all of them.

    OHEM's hard pixels are chosen on each process, as in the authors' code, and their count is known only now: parts
    that come one after another count alike.
    """
    settings = work.config.train
    sums = [loss.sums(logits, masks) for loss, logits in zip(work.losses, outputs, strict=False)]
    numbers = torch.stack([number.detach().float() for pair in sums for number in pair]).tolist()
    totals = iter(_over_processes(work.run.accelerator, numbers))
    mine, whole = sums[0][0].new_zeros(()), 0.0
    for (own, _), divisor, factor in zip(sums, divisors, (1.0, settings.aux_weight), strict=False):
        total, count = next(totals), next(totals)
        by = max(count * settings.accumulation if divisor is None else divisor, TINY)
        mine = mine + factor * own / by
        whole += factor * total / by
    return mine, whole


def _over_processes(accelerator: Accelerator, numbers: list[float]) -> list[float]:
    """Their sums over all processes."""
    if accelerator.num_processes == 1:
        return numbers
    summed = accelerator.reduce(torch.tensor(numbers, dtype=torch.float64, device=accelerator.device))
    return list(summed.tolist())


def _finite_or_stop(whole: float, own: torch.Tensor, step: int, batch: Batch) -> float:
    """The loss on all processes; where it is not finite all of them stop, and the one whose images did it says so."""
    if not math.isfinite(whole):
        where = "another process" if own.isfinite() else ", ".join(batch.names)
        raise _diverged(f"the loss of step {step + 1} is {whole} on {where}")
    return whole


def finite_weights_or_stop(run: Run) -> None:
    """Nothing is saved over a good state that would only fail in the next step."""
    finite = all(bool(own_part(tensor).isfinite().all()) for tensor in run.network.state_dict().values())
    if any(_over_processes(run.accelerator, [float(not finite)])):
        raise _diverged(f"step {run.progress.step} made weights that are not finite")


def _diverged(what: str) -> TrainingError:
    return TrainingError(f"{what}; lower train.learning_rate, or set train.clip_norm")


def _mixed_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) & sys.maxsize
