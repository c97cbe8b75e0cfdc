"""Predict images."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from asymseg.cli.terminal import PARTLY_FAILED, make_console, progress_bar, say_compile_time


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

    console = make_console()
    predictor = load(model, device, precision=precision, compile=compile, fold=fold)
    with progress_bar(console, "predict") as advance:
        outcome = predict_files(predictor, inputs, out, overlay=overlay, probabilities=probabilities, progress=advance)
    say_compile_time(predictor.coarse.compile_seconds, console)
    for failure in outcome.failures:
        console.print(f"[red]failed[/red] {failure}", highlight=False)
    console.print(f"{len(outcome.written)} predicted, {len(outcome.failures)} failed; masks in {out}")
    if outcome.failures:
        sys.exit(PARTLY_FAILED)
