"""The training loop."""

import signal
import warnings
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape

from asymseg.atomic import atomic_file
from asymseg.config import Config, TrainConfig
from asymseg.data.dataset import DataSet
from asymseg.data.loader import TimedBatches
from asymseg.data.measure import waiting_advice
from asymseg.evaluation.evaluate import Evaluation
from asymseg.model.memory import reused_memory
from asymseg.training import plan
from asymseg.training.faults import faults_told
from asymseg.training.folder import claimed_folder
from asymseg.training.log import RunLog
from asymseg.training.optimizer import learning_rate, set_learning_rate
from asymseg.training.state import load_last, save_last
from asymseg.training.step import Work, finite_weights_or_stop, optimizer_step, prepare, remaining_batches
from asymseg.training.stopping import StoppedError, Stopping
from asymseg.training.validation import measure_best, validate
from asymseg.training.watch import Watch, watched


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
        TrainingError: A loss that is not finite, a disk that is full, a folder that holds another run.
        StoppedError: SIGTERM or Ctrl-C came; the state was saved.
    """
    config = config or Config()
    console = console or Console(stderr=True, soft_wrap=True)
    out = Path(out)
    accelerator = plan.make_accelerator(config.train)
    dataset = data if isinstance(data, DataSet) else plan.open_data(data, config)

    def say(late: str) -> None:
        console.print(f"[yellow]late:[/yellow] {escape(late)}", highlight=False)

    with (
        watched(accelerator, config.train.late_after, say) as watch,
        claimed_folder(out, resume, accelerator.is_main_process),
    ):
        work = _prepared(dataset, config, out, resume, accelerator, console, watch)
        with faults_told(out, work.readers):
            _learn(work, console)
            accelerator.wait_for_everyone()
            return measure_best(work, console)


def _prepared(
    dataset: DataSet,
    config: Config,
    out: Path,
    resume: bool,
    accelerator: Accelerator,
    console: Console,
    watch: Watch,
) -> Work:
    """The run where its next step begins, said in words."""
    first = accelerator.is_main_process
    watch.at("looking at the data")
    counts = plan.check_data(dataset, config, console if first else None)
    watch.at("building the network")
    work = prepare(dataset, config, out, accelerator, counts, watch)
    run = work.run
    watch.at("reading the last state")
    note = load_last(out / "last", run) if resume else None
    if first:
        if note is not None:
            console.print(f"note: {note}", highlight=False, markup=False)
        if resume and run.progress.step == 0:
            console.print(f"note: no run in {out} to go on with; a new one begins", highlight=False, markup=False)
        for change in plan.changed_settings(out, config):
            console.print(f"changed from here on: {change}", highlight=False, markup=False)
        with faults_told(out, work.readers), atomic_file(out / "config.yaml") as temporary:
            temporary.write_text(config.to_yaml(), encoding="utf-8")
        plan.announce(console, dataset, run.network, config, accelerator, run.progress.step, out)
    return work


def _learn(work: Work, console: Console) -> None:
    """All steps that are left."""
    run, settings, first = work.run, work.config.train, work.first
    progress = run.progress
    advised = not first
    with (
        RunLog(work.out, settings.steps, progress.step, console, first) as log,
        reused_memory(run.accelerator.device),
        Stopping() as stopping,
        warnings.catch_warnings(),
    ):
        # DDP's word on 1x1 kernels, whose strides say the same in either form.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # FSDP's word on logits and a backbone's maps that are views; nobody writes anything into them.
        warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(FSDP(ANNNet|TimmBackbone)\) returned a view tensor")
        if progress.unvalidated:
            _end_step(work, log, stopping)
        batches = TimedBatches(remaining_batches(work), settings.batch_size)
        for step in range(progress.step, settings.steps):
            rate = learning_rate(step, settings)
            set_learning_rate(run.optimizer, rate)
            loss, skipped = optimizer_step(work, batches, step)
            progress.step = step + 1
            progress.losses.append(loss)
            log.skipped(progress.step, skipped)
            log.step(progress.step, loss, *batches.speed())
            if _due(progress.step, settings.log_every, settings):
                log.train(progress.step, float(np.mean(progress.losses)), rate, *batches.speed())
                progress.losses.clear()
                advised = advised or _advise(batches, work, console)
                batches.restart()
            progress.unvalidated = validating = _due(progress.step, settings.validate_every, settings)
            _end_step(work, log, stopping)
            if validating:
                batches.restart()


def _due(step: int, every: int, settings: TrainConfig) -> bool:
    return step % every == 0 or step == settings.steps


def _end_step(work: Work, log: RunLog, stopping: Stopping) -> None:
    """Validate and save where that is due, and leave where that was asked for."""
    run, progress, settings = work.run, work.run.progress, work.config.train
    if progress.unvalidated:
        work.watch.at(f"step {progress.step}: validation")
        finite_weights_or_stop(run)
        progress.unvalidated = not validate(work, log, stopping)
    asked = stopping.agreed(run.accelerator)
    if asked or _due(progress.step, settings.save_every, settings):
        work.watch.at(f"step {progress.step}: saving")
        finite_weights_or_stop(run)
        save_last(work.out / "last", run, work.info)
    if asked:
        run.accelerator.wait_for_everyone()  # launchers end all processes when the first one leaves
        name = signal.Signals(asked).name
        raise StoppedError(f"stopped by {name} after step {progress.step}, saved; go on with --resume", asked)


def _advise(batches: TimedBatches, work: Work, console: Console) -> bool:
    """Say what would help where much of the time goes on waiting for images; whether it was said."""
    if work.config.data.on_bad_file == "skip":
        return True  # it reads files one by one, and may meet a bad one
    _, share = batches.speed()
    data, channels, info = work.config.data, work.config.model.in_channels, work.info
    advice = waiting_advice(share, work.readers.pairs, work.dataset.classes, data, channels, info.mean, info.std)
    if advice is not None:
        console.print(f"[yellow]slow:[/yellow] {advice}", highlight=False)
    return advice is not None
