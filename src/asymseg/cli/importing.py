"""Bring weights from elsewhere."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from asymseg.cli.terminal import make_console
from asymseg.errors import CheckpointError

if TYPE_CHECKING:
    from asymseg.model.foreign.importing import Imported


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
        make_console().print(line, highlight=False, markup=False)


def _say_what_it_sees(model: Path, image: Path) -> None:
    """Print the classes that a model finds in an image, how much of it each covers and how sure the model is."""
    import numpy as np

    from asymseg.prediction.loading import load

    result = load(model)(image)
    height, width = result.mask.shape
    sure = result.probabilities.max(axis=0)
    sys.stdout.write(f"{image}: {height} x {width} pixels\n{'class':24} {'share':>7}  mean probability\n")
    share = np.bincount(result.mask.ravel(), minlength=len(result.classes)) / result.mask.size
    for number in np.argsort(-share, kind="stable"):
        if share[number]:
            name, mean = result.classes.names[number], sure[result.mask == number].mean()
            sys.stdout.write(f"{name:24} {share[number]:7.2%}  {mean:.4f}\n")
