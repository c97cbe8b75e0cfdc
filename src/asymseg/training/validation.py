"""What a run measures: the network on the way, and the best model in the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from accelerate.utils import broadcast
from rich.console import Console

from asymseg.evaluation.evaluate import Evaluation, evaluate, measure
from asymseg.evaluation.metrics import json_number, scores
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor
from asymseg.training.log import RunLog, read_log
from asymseg.training.sharding import whole_network
from asymseg.training.step import Work
from asymseg.training.stopping import Stopping


def validate(work: Work, log: RunLog, stopping: Stopping) -> bool:
    """Measure the network as it is, and save it where it is the best; whether there was time for it."""
    run = work.run
    if run.accelerator.num_processes > 1:
        _same_everywhere(run.evaluated)
    network = whole_network(run.evaluated, run.outline)
    result = _measure(work, network, log, stopping)
    if result is not None:
        _keep_if_best(work, network, result, log)
    return result is not None


def measure_best(work: Work, console: Console) -> Evaluation:
    """The scores of the best model, with the report where this process writes one."""
    work.watch.at("measuring the best model")
    history = read_log(work.out)
    bad = [entry["message"] for entry in history if entry["kind"] == "skipped"]
    note = f"{len(set(bad))} training files could not be read and were left out, {len(bad)} times in all"
    dataset = replace(work.dataset, notes=(*work.dataset.notes, *([note] if bad else [])))
    shown = console if work.first else Console(quiet=True)
    images = len(dataset.splits["val"])
    shown.print(f"measuring the best model on {images} validation images, for the report", highlight=False)

    def tell(done: int, _total: int) -> None:
        status.update(f"measuring: image {done} of {images}" if done < images else "writing the report")

    with shown.status("measuring") as status:
        best = evaluate(
            work.out / "best",
            dataset,
            "val",
            out=work.out if work.first else None,
            history=history,
            device=str(work.run.accelerator.device),
            workers=work.config.eval.workers,
            progress=tell,
        )
    if work.first:
        if bad:
            console.print(f"[yellow]warning:[/yellow] {note}; see log.jsonl", highlight=False)
        console.print(
            f"best model (step {work.run.progress.best_step}): validation mIoU {best.scores.miou:.4f}; "
            f"see {work.out / 'report.html'}; predict with: asymseg predict {work.out / 'best'} IMAGE -o OUT",
            markup=False,
        )
    return best


class _CutShortError(Exception):
    """A validation that there is no time for any more."""


def _measure(work: Work, network: ANNNet, log: RunLog, stopping: Stopping) -> Evaluation | None:
    """Scores on the validation images; every process measures its share and all know the sum.

    None where a wish to stop cut it short, which is done where there is one process alone: others would wait for this
    one's share.
    """
    accelerator, alone = work.run.accelerator, work.run.accelerator.num_processes == 1
    pairs = work.dataset.splits["val"][accelerator.process_index :: accelerator.num_processes]

    def look(done: int, total: int) -> None:
        log.validating(done, total)
        if alone and stopping.number:
            raise _CutShortError

    try:
        with _plain_forward(network):
            predictor = Predictor(network, work.info, str(accelerator.device))
            part = measure(predictor, pairs, work.dataset, work.config.eval.workers, look)
    except _CutShortError:
        return None
    if alone:
        return part
    work.watch.at(f"step {work.run.progress.step}: adding up what was measured")
    matrix = accelerator.reduce(part.matrix.to(accelerator.device)).cpu()
    return Evaluation(matrix, scores(matrix), part.images)


def _keep_if_best(work: Work, network: ANNNet, result: Evaluation, log: RunLog) -> None:
    """Log a validation, and save the model that it is about where none was better."""
    progress, best = work.run.progress, work.out / "best"
    better = result.scores.miou > progress.best_miou or not best.exists()
    log.validation(progress.step, result.scores.miou, result.scores.pixel_accuracy, better)
    if better:
        progress.best_miou, progress.best_step = result.scores.miou, progress.step
        if work.first:
            save_model(best, network, _with_metrics(work.info, result, progress.step))


def _same_everywhere(network: ANNNet) -> None:
    """Give every process the first one's BatchNorm statistics: they are what is saved, and each has seen others."""
    for buffer in network.buffers():
        broadcast(buffer)


@contextmanager
def _plain_forward(network: ANNNet) -> Iterator[None]:
    """The network without the mixed precision that accelerate wraps its forward in: as it will be saved and used."""
    wrapped = vars(network).pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            vars(network)["forward"] = wrapped


def _with_metrics(info: ModelInfo, result: Evaluation, step: int) -> ModelInfo:
    """The same, with what was measured in this step."""
    measured = {"miou": result.scores.miou, "pixel_accuracy": result.scores.pixel_accuracy}
    known = {name: json_number(value) for name, value in measured.items()}
    return replace(info, metrics={"split": "val", "step": step, **known})
