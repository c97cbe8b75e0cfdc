"""Export a model."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from asymseg.cli.terminal import make_console


def export(
    model: str,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    format: Literal["onnx", "program", "aotinductor"] | None = None,
    output: Literal["logits", "probabilities", "class_map"] = "logits",
    from_bytes: Annotated[bool, Parameter(negative=())] = False,
    size: tuple[int, int] | None = None,
    half: Annotated[bool, Parameter(negative=())] = False,
    fold: bool = True,
) -> None:
    """Write a model as a file for other runtimes: ONNX or PyTorch's exported program, for images of any size.

    Before the file gets its name it is compared with the network at many sizes; one that is not equal is not written.

    Parameters
    ----------
    model
        A model folder such as runs/train/best, a checkpoint file, a name of `asymseg models`, or a hub id.
    out
        The file: NAME.onnx, or NAME.pt2 for PyTorch.
    format
        onnx, program or aotinductor (compiled for this kind of machine); by default as the suffix says.
    output
        What the file gives: logits, probabilities, or class_map, class ids as bytes.
    from_bytes
        Take RGB bytes and normalise them inside; otherwise the file takes normalised numbers.
    size
        The one height and width to take; by default any.
    half
        Compute in float16, for GPUs.
    fold
        Export the network's evaluation form, which has the same logits; --no-fold keeps the plain one.
    """
    from asymseg.exporting.export import export as run

    console = make_console()
    with console.status("exporting") as status:
        exported = run(
            model,
            out,
            format=format,
            output=output,
            from_bytes=from_bytes,
            size=size,
            half=half,
            fold=fold,
            progress=status.update,
        )
    worst = max(exported.cases, key=lambda case: case.error)
    console.print(
        f"wrote {exported.path} ({exported.bytes / 1e6:.1f} MB): equal to the network at {len(exported.cases)} sizes; "
        f"largest difference {worst.error:.1e} of the largest logit, at {worst.batch} x {worst.height} x {worst.width}",
        highlight=False,
        markup=False,
    )
