"""The command line: each command parses and calls one function. Nothing heavy is imported before a command runs."""

import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
import pydantic
from cyclopts import Parameter

from asymseg.benchmarking.settings import BenchmarkSettings
from asymseg.config import Config, explain, make_config, read_config
from asymseg.errors import AsymsegError, CheckpointError

if TYPE_CHECKING:
    from rich.console import Console

    from asymseg.model.foreign.importing import Imported

app = cyclopts.App(
    name="asymseg",
    help="Semantic segmentation with asymmetric non-local attention: train, measure, predict.",
    version=lambda: version("asymseg"),
    default_parameter=Parameter(name_transform=lambda name: name, negative_iterable=(), consume_multiple=True),
    help_format="plaintext",
    result_action="return_value",
)

USER_ERROR = 2
PARTLY_FAILED = 3


@app.command
def sample(folder: Path, *, train: int = 256, val: int = 64, test: int = 64) -> None:
    """Write the built-in scenes as a data set on disk.

    In each scene a coloured beacon decides the class of identical grey discs, wherever they are: what a network can
    label only if it sees the whole image.

    Parameters
    ----------
    folder
        Where the data set is written; it must not exist yet, or be empty.
    train
        Scenes to learn from.
    val
        Scenes to choose the best model by.
    test
        Scenes to measure it on.
    """
    from asymseg.data.sample import write_sample

    write_sample(folder, train=train, val=val, test=test)
    _console().print(f"wrote {train + val + test} scenes to {folder}; next: asymseg train {folder} --config sample")


@app.command
def train(
    data: Path | None = None,
    *,
    config: str | None = None,
    out: Path = Path("runs/train"),
    resume: Annotated[bool, Parameter(negative=())] = False,
    images: Path | None = None,
    masks: Path | None = None,
    print_config: Annotated[bool, Parameter(name="--print-config", negative=())] = False,
    settings: Annotated[Config | None, Parameter(name="*")] = None,
) -> None:
    """Train a network on a data folder, or on a folder of images and a folder of masks.

    Parameters
    ----------
    data
        Folder with images/{train,val}, masks/{train,val} and perhaps classes.json.
    config
        A YAML file of settings, or the name of a recipe that comes with asymseg; flags have the last word.
    out
        The run's folder: best and last model, log, metrics and report.
    resume
        Go on with the run in --out where it was stopped, by its own settings; flags change them from here on.
    images
        Folder of images, in place of DATA.
    masks
        Folder of masks for --images.
    print_config
        Write all settings as YAML and stop.
    """
    layers: list[dict[str, Any]] = []
    if resume and (out / "config.yaml").is_file():
        layers.append(read_config(out / "config.yaml"))  # a run goes on as it began, but for what is given now
    if config:
        layers.append(read_config(config))
    if settings is not None:
        layers.append(settings.model_dump(exclude_unset=True))
    if images is not None or masks is not None:
        layers.append({"data": {"images": images, "masks": masks}})
    complete = make_config(*layers)
    if print_config:
        sys.stdout.write(complete.to_yaml())
        return
    from asymseg.training.train import train as run

    run(data, complete, out=out, resume=resume, console=_console())


@app.command
def evaluate(
    model: str,
    data: Path | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    split: str = "val",
    scales: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None,
    flip: bool | None = None,
    out: Path | None = None,
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
        A model folder such as runs/train/best, a checkpoint file, a name of `asymseg models`, or a hub id.
    data
        A data folder of the model's classes.
    images
        Folder of images, in place of DATA.
    masks
        Folder of masks for --images.
    split
        Which part: train, val or test.
    scales
        Sizes at which the network sees an image, probabilities averaged; by default as the model was validated.
    flip
        Whether it also sees each image mirrored; by default as the model was validated.
    out
        Folder for the results; by default MODEL/evaluation-SPLIT, or evaluation-NAME-SPLIT where MODEL is no folder.
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
    from asymseg.evaluation.evaluate import evaluate as run
    from asymseg.prediction.predict import load

    console = _console()
    folder = Path(model)
    out = out or (folder / f"evaluation-{split}" if folder.is_dir() else Path(f"evaluation-{folder.stem}-{split}"))
    predictor = load(model, device, precision=precision, compile=compile, fold=fold)
    with _progress(console, "evaluate") as advance:
        result = run(
            predictor,
            data,
            split,
            images=images,
            masks=masks,
            scales=scales,
            flip=flip,
            out=out,
            gallery=gallery,
            workers=workers,
            progress=advance,
        )
    _say_compile_time(predictor.coarse.compile_seconds, console)
    console.print(
        f"{split}: mIoU {result.scores.miou:.4f}, pixel accuracy {result.scores.pixel_accuracy:.4f} over "
        f"{len(result.images)} images; see {out / 'report.html'}"
    )


@app.command
def predict(
    model: str,
    inputs: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    overlay: bool = True,
    probabilities: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
    fold: bool = True,
) -> None:
    """Predict an image, a folder of images or a glob; writes palette PNGs of class ids and pictures to look at.

    Exits with 3 where some images could not be read; the others are done.

    Parameters
    ----------
    model
        A model folder such as runs/train/best, a checkpoint file, a name of `asymseg models`, or a hub id.
    inputs
        An image, a folder, or a pattern in quotes such as "photos/*.jpg".
    out
        Folder for the results, or for one image a file NAME.png.
    overlay
        Also write NAME_overlay.jpg: the image with the classes' colours over it.
    probabilities
        Also write NAME_probabilities.npz: float16, classes x height x width.
    device
        auto, cpu, cuda or mps.
    precision
        Arithmetic of the network; auto is fp32. bf16 and fp16 are faster on many GPUs, and change some pixels.
    compile
        Compile the network, anew for each size of image; for many images of one size on a GPU.
    fold
        Use the network's evaluation form, which has the same logits; --no-fold keeps the plain one.
    """
    from asymseg.prediction.files import predict_files
    from asymseg.prediction.predict import load

    console = _console()
    predictor = load(model, device, precision=precision, compile=compile, fold=fold)
    with _progress(console, "predict") as advance:
        outcome = predict_files(predictor, inputs, out, overlay=overlay, probabilities=probabilities, progress=advance)
    _say_compile_time(predictor.coarse.compile_seconds, console)
    for failure in outcome.failures:
        console.print(f"[red]failed[/red] {failure}", highlight=False)
    console.print(f"{len(outcome.written)} predicted, {len(outcome.failures)} failed; masks in {out}")
    if outcome.failures:
        sys.exit(PARTLY_FAILED)


@app.command(name="import")
def import_(
    checkpoint: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    classes: Path | None = None,
    align_corners: bool | None = None,
    verify: Path | None = None,
) -> None:
    """Turn a checkpoint of the authors', mmsegmentation's or PaddleSeg's into a model folder.

    Which of them wrote it is told by its keys, and nothing in it can run. Every key is used or named.

    Parameters
    ----------
    checkpoint
        The file: .pth or .pdparams.
    out
        The model folder to write.
    classes
        A classes.json with the names and colours, in place of those in the file or where it has none.
    align_corners
        How logits are upsampled, where the file does not say it: mmsegmentation's networks for crops of 769x769 pixels
        need it.
    verify
        An image to predict from the folder that was written; what the network says of it is printed.
    """
    from dataclasses import replace

    from asymseg.classes import Classes
    from asymseg.model.checkpoint import save_model
    from asymseg.model.foreign.importing import read_foreign

    _check_may_replace(out)
    imported = read_foreign(checkpoint, align_corners=align_corners)
    network, info = imported.network, imported.info
    if classes is not None:
        named = Classes.from_file(classes)
        if len(named) != network.num_classes:
            raise CheckpointError(
                f"{classes}: {len(named)} classes; the network of {checkpoint} has {network.num_classes}"
            )
        info = replace(info, classes=named)
    save_model(out, network, info)
    _say_what_was_imported(imported, out)
    if verify is not None:
        _say_what_it_sees(out, verify)


@app.command
def models() -> None:
    """List the published ANN weights that predict and evaluate take by name."""
    from asymseg.model.zoo import ZOO, cached_folder, home

    columns = "{:36} {:15} {:15} {:>9} {:>6} {:>9} {:>4}  {:11} {}\n"
    lines = [columns.format("name", "data set", "backbone", "crop", "mIoU", "ms + flip", "MB", "licence", "from")]
    lines += [
        columns.format(
            entry.name,
            entry.dataset,
            entry.backbone,
            f"{entry.crop[0]}x{entry.crop[1]}",
            f"{entry.miou:.2f}",
            f"{entry.miou_multi_scale:.2f}",
            entry.megabytes,
            entry.license,
            entry.framework + (" (fetched)" if cached_folder(entry) else ""),
        )
        for entry in ZOO.values()
    ]
    sys.stdout.write("".join(lines))
    sys.stdout.write(
        "\nThe mean IoUs, in percent on the validation images, are those that the publishers report. The licence is\n"
        f"that of their code; the data sets have terms of their own. What is fetched is kept in {home()}.\n"
    )


benchmark = cyclopts.App(name="benchmark", help="Measure time and memory beside rivals, in turn and in one process.")
app.command(benchmark)


@benchmark.command(name="blocks")
def benchmark_blocks(
    *, out: Path | None = None, settings: Annotated[BenchmarkSettings | None, Parameter(name="*")] = None
) -> None:
    """Measure APNB against the same block written plainly and the symmetric non-local block, over sizes.

    Parameters
    ----------
    out
        Folder for results.json, results.md and pictures.
    """
    from asymseg.benchmarking.benchmark import blocks as run

    run(settings or BenchmarkSettings(), out, _console())


@benchmark.command(name="head")
def benchmark_head(
    *, out: Path | None = None, settings: Annotated[BenchmarkSettings | None, Parameter(name="*")] = None
) -> None:
    """Measure ANNNet's head, folded and in training, against the plain one and its bare 3x3 convolution.

    Parameters
    ----------
    out
        Folder for results.json, results.md and pictures.
    """
    from asymseg.benchmarking.benchmark import head as run

    run(settings or BenchmarkSettings(), out, _console())


@benchmark.command(name="network")
def benchmark_network(
    *,
    backbone: str = "resnet50",
    compile: bool = True,
    training: Annotated[bool, Parameter(negative=())] = False,
    out: Path | None = None,
    settings: Annotated[BenchmarkSettings | None, Parameter(name="*")] = None,
) -> None:
    """Measure ANNNet from images to logits against its plain form, with each step that makes it faster.

    Parameters
    ----------
    backbone
        A timm model; its weights are random.
    compile
        Also measure the compiled form; the first time takes minutes.
    training
        Also measure a forward and backward pass.
    out
        Folder for results.json, results.md and pictures.
    """
    from asymseg.benchmarking.benchmark import network as run

    run(settings or BenchmarkSettings(), backbone, out, _console(), compiling=compile, training=training)


@benchmark.command(name="loader")
def benchmark_loader(
    data: Path | None = None,
    *,
    config: str | None = None,
    out: Path | None = None,
    quick: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[Config | None, Parameter(name="*")] = None,
) -> None:
    """Measure how fast training images are read: each stage, and all of them beside decoding and resizing alone.

    Parameters
    ----------
    data
        A data folder; its training images are read.
    config
        A YAML file of settings, or the name of a recipe that comes with asymseg; flags have the last word.
    out
        Folder for results.json, results.md and a picture.
    quick
        A few images only: shows that all works, and measures nothing.
    """
    given = settings.model_dump(exclude_unset=True) if settings is not None else {}
    complete = make_config(*([read_config(config)] if config else []), given)
    from asymseg.benchmarking.loader import loader, loader_command

    command = loader_command(data, config, given, quick=quick)
    loader(data, complete, out, _console(), command=command, quick=quick)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. A user's mistake prints one line and exits with 2; a bug keeps its traceback and exits with 1."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except AsymsegError as error:
        _fail(str(error))
    except cyclopts.CycloptsError as error:
        cause = error.__cause__
        _fail(explain(cause) if isinstance(cause, pydantic.ValidationError) else str(error))
    except pydantic.ValidationError as error:
        _fail(explain(error))
    except KeyboardInterrupt:
        _fail("stopped; a training run goes on from its last checkpoint by --resume", code=130)


def _say_compile_time(seconds: dict[tuple[int, ...], float], console: "Console") -> None:
    if seconds:
        console.print(
            f"of that, {sum(seconds.values()):.0f} s compiled the network for {len(seconds)} size(s) of image"
        )


def _check_may_replace(folder: Path) -> None:
    """Refuse to put a model where something else lies: a folder is replaced whole."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: holds something else than a model; choose another folder for -o")


def _say_what_was_imported(imported: "Imported", out: Path) -> None:
    """Print what network a checkpoint holds, and which of its keys were left out and why."""
    from asymseg.model.checkpoint import parameter_count

    reasons: dict[str, list[str]] = {}
    for key, reason in imported.dropped.items():
        reasons.setdefault(reason, []).append(key)
    lines = [
        f"left out: {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}: {reason}"
        for reason, keys in reasons.items()
    ]
    network, info = imported.network, imported.info
    settings = network.settings
    lines.append(
        f"wrote {out} from a checkpoint of {imported.dialect}: {settings['backbone']}, fusion {settings['fusion']}, "
        f"context {settings['context']}, output stride {settings['output_stride']}, "
        f"{parameter_count(network):,} parameters, {len(info.classes)} classes, {info.channel_order}, "
        f"align_corners {str(network.align_corners).lower()}"
    )
    for line in lines:
        _console().print(line, highlight=False, markup=False)


def _say_what_it_sees(model: Path, image: Path) -> None:
    """Print the classes that a model finds in an image, how much of it each covers and how sure the model is."""
    import numpy as np

    from asymseg.prediction.predict import load

    result = load(model)(image)
    height, width = result.mask.shape
    sure = result.probabilities.max(axis=0)
    sys.stdout.write(f"{image}: {height} x {width} pixels\n{'class':24} {'share':>7}  mean probability\n")
    share = np.bincount(result.mask.ravel(), minlength=len(result.classes)) / result.mask.size
    for number in np.argsort(-share, kind="stable"):
        if share[number]:
            name, mean = result.classes.names[number], sure[result.mask == number].mean()
            sys.stdout.write(f"{name:24} {share[number]:7.2%}  {mean:.4f}\n")


def _fail(message: str, code: int = USER_ERROR) -> None:
    sys.stderr.write(f"asymseg: {' '.join(message.split())}\n")
    sys.exit(code)


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def _progress(console: "Console", title: str) -> Any:
    """A bar with speed and remaining time; gives a function of (images done, images in all)."""
    from contextlib import contextmanager

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    @contextmanager
    def running() -> Any:
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(title, total=None, speed="")
            started = time.monotonic()

            def advance(done: int, total: int) -> None:
                speed = done / max(time.monotonic() - started, 1e-9)
                bar.update(task, completed=done, total=total, speed=f"{speed:.1f} images/s")

            yield advance

    return running()
