"""Measure a model."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from asymseg.cli.terminal import make_console, progress_bar, say_compile_time, warnings_in_a_line


def evaluate(
    model: str,
    data: str | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    split: str = "val",
    mode: Literal["whole", "slide"] | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    weighting: Literal["flat", "tapered"] | None = None,
    scales: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None,
    flip: bool | None = None,
    average: Literal["probabilities", "logits", "mixed"] | None = None,
    boundary: bool = True,
    calibration: bool = True,
    replicates: int = 2000,
    out: Path | None = None,
    submission: Path | None = None,
    gallery: bool = True,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
    fold: bool = True,
    workers: int = 2,
) -> None:
    """Measure a model on labelled images at their own size; writes metrics.json and report.html.

    Parameters
    ----------
    model
        A model folder such as runs/train/best, a checkpoint file, a name of `asymseg models`, a hub id, or what
        `asymseg export` wrote as NAME.onnx.
    data
        A data folder of the model's classes, or NAME:PATH of a known data set such as cityscapes:PATH.
    images
        Folder of images, in place of DATA.
    masks
        Folder of masks for --images.
    split
        Which part: train, val or test.
    mode
        See an image whole, or slide over it by windows; this and the six below are by default as the model says.
    window
        Height and width of the windows, in pixels of the scaled image.
    stride
        From one window to the next, down and across; by default two thirds of a window.
    weighting
        flat: windows count alike; tapered: less towards their border.
    scales
        Sizes at which the network sees an image.
    flip
        Whether it also sees each image mirrored.
    average
        What is averaged over windows, scales and flips; mixed is logits over windows, then probabilities.
    boundary
        Measure boundary IoU and the IoU away from edges.
    calibration
        Measure the confidences too: calibration error, risk against coverage.
    replicates
        Sets of images drawn for the 95 % intervals; 0 for none.
    out
        Folder for the results; by default MODEL/evaluation-SPLIT, or evaluation-NAME-SPLIT where MODEL is no folder.
    submission
        Folder for the predictions in the ids and files that the server of a known data set takes (cityscapes, ade20k);
        of a split whose labels are not public, they are all that is written.
    gallery
        Whether the report shows images; without, it can be passed on where the data may not.
    device
        auto, cpu, cuda or mps.
    precision
        Arithmetic of the network; auto is fp32. bf16 and fp16 are faster on many GPUs, and change some pixels.
    compile
        Compile the network, anew for each size of image; for many images of one size on a GPU.
    fold
        Use the network's evaluation form, which has the same logits; --no-fold keeps the plain one.
    workers
        Threads that decode images ahead.
    """
    from asymseg.data.dataset import DataSet, open_dataset
    from asymseg.evaluation.evaluate import evaluate as run
    from asymseg.evaluation.submission import submit
    from asymseg.prediction.loading import load
    from asymseg.prediction.onnx.on_torch import on_torch

    console = make_console()
    folder = Path(model)
    out = out or (folder / f"evaluation-{split}" if folder.is_dir() else Path(f"evaluation-{folder.stem}-{split}"))
    predictor = on_torch(load(model, device, precision=precision, compile=compile, fold=fold)).seeing(
        mode=mode, window=window, stride=stride, weighting=weighting, scales=scales, flip=flip, average=average
    )
    dataset = open_dataset(data) if submission is not None and data is not None else data
    if submission is not None and isinstance(dataset, DataSet) and split in dataset.unlabelled:
        with progress_bar(console, "predict", waits=True) as advance, warnings_in_a_line(console):
            count = submit(predictor, dataset, split, submission, workers, advance)
        console.print(f"{split}: wrote {count} predictions to {submission}", markup=False, highlight=False)
        return
    with progress_bar(console, "evaluate", waits=True) as advance, warnings_in_a_line(console):
        result = run(
            predictor,
            dataset,
            split,
            images=images,
            masks=masks,
            boundary=boundary,
            calibration=calibration,
            replicates=replicates,
            out=out,
            submission=submission,
            gallery=gallery,
            workers=workers,
            progress=advance,
        )
    say_compile_time(predictor.coarse.compile_seconds, console)
    intervals = result.intervals
    miou, accuracy = result.scores.miou, result.scores.pixel_accuracy
    console.print(
        f"{split}: mIoU {miou:.4f}{intervals.miou if intervals else ''}, pixel accuracy {accuracy:.4f}"
        f"{intervals.pixel_accuracy if intervals else ''} over {len(result.images)} images; see {out / 'report.html'}",
        markup=False,
        highlight=False,
    )
