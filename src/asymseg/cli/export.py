"""Export a model."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from asymseg.cli.terminal import make_console, progress_words


def export(
    model: str,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    format: Literal["onnx", "program", "aotinductor", "openvino"] | None = None,
    output: Literal["logits", "probabilities", "class_map"] = "logits",
    from_bytes: Annotated[bool, Parameter(negative=())] = False,
    size: tuple[int, int] | None = None,
    half: Annotated[bool, Parameter(negative=())] = False,
    int8: Annotated[bool, Parameter(negative=())] = False,
    calibrate: str | None = None,
    images: int = 100,
    max_loss: float = 1.0,
    fold: bool = True,
) -> None:
    """Write a model as a file for other runtimes: ONNX, PyTorch's exported program or OpenVINO, for images of any size.

    Before the file gets its name it is compared with the network at many sizes; one that is not equal is not written.

    Parameters
    ----------
    model
        A model folder such as runs/train/best, a checkpoint file, a name of `asymseg models`, or a hub id.
    out
        The file: NAME.onnx, NAME.pt2 for PyTorch, or NAME.xml for OpenVINO, which puts NAME.bin beside it.
    format
        onnx, program, openvino or aotinductor (compiled for this kind of machine); by default as the suffix says.
    output
        What the file gives: logits, probabilities, or class_map, class ids as bytes.
    from_bytes
        Take RGB bytes and normalise them inside; otherwise the file takes normalised numbers.
    size
        The one height and width to take; by default any.
    half
        Compute in float16, for GPUs.
    int8
        Compute most convolutions in int8, for CPUs. Such a file is not equal; its loss is measured instead.
    calibrate
        For --int8, a data folder or NAME:PATH: train images give the ranges of the numbers, val images the mean IoU.
    images
        How many train images give the ranges.
    max_loss
        Points of mean IoU that int8 may cost; a file that loses more is not written.
    fold
        Export the network's evaluation form, which has the same logits; --no-fold keeps the plain one.
    """
    console = make_console()
    with progress_words(console) as tell:
        from asymseg.exporting.export import export as run  # takes seconds too

        exported = run(
            model,
            out,
            format=format,
            output=output,
            from_bytes=from_bytes,
            size=size,
            half=half,
            int8=int8,
            calibrate=calibrate,
            images=images,
            max_loss=max_loss,
            fold=fold,
            progress=tell,
        )
    worst = max(exported.cases, key=lambda case: case.error)
    proof = (
        f"equal to the network at {len(exported.cases)} sizes; "
        f"largest difference {worst.error:.1e} of the largest logit, at {worst.batch} x {worst.height} x {worst.width}"
    )
    if (int8_cost := exported.quantisation) is not None:
        proof = (
            f"int8, ranges from {int8_cost.calibrated_on} images; mIoU on {int8_cost.images} val images "
            f"{int8_cost.miou_before:.4f} before, {int8_cost.miou_after:.4f} after; runs at {len(exported.cases)} sizes"
        )
    console.print(f"wrote {exported.path} ({exported.bytes / 1e6:.1f} MB): {proof}", highlight=False, markup=False)
