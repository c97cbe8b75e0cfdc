"""Look for what is wrong with a data set."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from asymseg.cli.terminal import DOUBTFUL, FAULTY, make_console, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from asymseg.data.audit.audit import Audit
    from asymseg.prediction.predict import Predictor


def check(
    data: str | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    out: Path | None = None,
    json: Annotated[Path | None, Parameter(name="--json")] = None,
    html: Path | None = None,
    gallery: bool = True,
    channels: int = 3,
    near: bool = True,
    workers: int | None = None,
    model: str | None = None,
    split: str = "train",
    top: int = 60,
    device: str = "auto",
) -> None:
    """Read every pixel of a data set and say what is wrong with it; writes check.json and check.html.

    Exits with 0 where there is nothing to mend, with 3 where there are errors, and with 4 where there are warnings
    alone. With --model it also ranks the regions that are likely labelled wrongly.

    Parameters
    ----------
    data
        Folder with images/{train,val}, masks/{train,val} and perhaps classes.json; or NAME:PATH of a known data set as
        it was downloaded, such as cityscapes:PATH.
    images
        Folder of images, in place of DATA.
    masks
        Folder of masks for --images.
    out
        Folder for the results; by default runs/check-NAME, after the folder of the data or of the images.
    json
        File for all that was found, in place of OUT/check.json.
    html
        File for the page, in place of OUT/check.html.
    gallery
        Whether the page shows images; without, it can be passed on where the data may not.
    channels
        Of the images, as the network will take them.
    near
        Whether to look for near duplicates too: the same picture resized, mirrored or saved anew.
    workers
        Threads that read; by default one for each core.
    model
        A model folder such as runs/train/best, of the same classes: its confident contradictions are likely label
        errors, written to OUT/label_errors.html.
    split
        Which part --model looks at: train, val or test.
    top
        How many likely label errors are shown.
    device
        Where the model runs: auto, cpu, cuda or mps.
    """
    from asymseg.data.audit.audit import audit
    from asymseg.data.audit.page import write_page

    console = make_console()
    predictor = None
    if model is not None:
        from asymseg.prediction.loading import load
        from asymseg.prediction.onnx.on_torch import on_torch

        predictor = on_torch(load(model, device))  # before all pixels are read, lest a mistyped name be told at the end
    with progress_bar(console, "check") as advance:
        result = audit(
            data, images=images, masks=masks, channels=channels, near=near, workers=workers, progress=advance
        )
    out = out or Path("runs", f"check-{_name(data or str(images))}")
    json, html = json or out / "check.json", html or out / "check.html"
    _write_json(json, result)
    write_page(html, result, pictures=gallery, channels=channels)
    _tell(result)
    console.print(f"see {html}; all files are in {json}", highlight=False, markup=False)
    if predictor is not None:
        if result.count("error"):
            console.print("label errors were not looked for: mend the errors first", highlight=False)
        else:
            _find_label_errors(predictor, data, images, masks, split, top, gallery, out, console)
    if result.count("error"):
        sys.exit(FAULTY)
    if result.count("warning"):
        sys.exit(DOUBTFUL)


def _name(data: str) -> str:
    """Of a data folder, where it is given as NAME:PATH or as . too."""
    return Path(data.rpartition(":")[2]).resolve().name


def _write_json(path: Path, result: "Audit") -> None:
    from asymseg.atomic import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")


def _tell(result: "Audit") -> None:
    """Print the findings and the balance of the classes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from asymseg.data.audit.findings import SEVERITIES

    console = Console(soft_wrap=True, highlight=False)
    colours = {"error": "red", "warning": "yellow", "note": "cyan"}
    if result.classes is not None and any(part.class_pixels for part in result.splits.values()):
        table = Table(box=None, pad_edge=False)
        table.add_column("class")
        for name, part in result.splits.items():
            table.add_column(f"{name}: {len(part.pairs)}", justify="right")
            table.add_column("masks", justify="right")
        table.add_column("weight", justify="right")
        for number, name in enumerate(result.classes.names):
            cells = []
            for part in result.splits.values():
                total = max(1, sum(part.class_pixels))
                known = bool(part.class_pixels)
                cells += [f"{100 * part.class_pixels[number] / total:.2f} %" if known else ""]
                cells += [str(part.class_masks[number]) if known else ""]
            weight = f"{result.weights[number]:.3f}" if result.weights else ""
            table.add_row(Text(name), *cells, weight)
        ignored = [cell for part in result.splits.values() for cell in (f"{100 * part.ignored_share:.2f} %", "")]
        table.add_row(Text("ignored", style="dim"), *ignored, "")
        console.print(table)
        if result.weights:
            weight = "weight: what --train.class_weights median_frequency would count a class by, above 1 for rare ones"
            console.print(Text(weight, style="dim"))
        console.print()
    for finding in result.findings:
        console.print(Text.assemble((finding.severity, f"bold {colours[finding.severity]}"), " ", finding.message))
        console.print(Text(f"    {finding.cure}", style="dim"))
    counts = ", ".join(f"{result.count(name)} {name}(s)" for name in SEVERITIES)
    images = sum(len(part.pairs) for part in result.splits.values())
    console.print(f"{images} images with masks: {counts}")


def _find_label_errors(
    predictor: "Predictor",
    data: str | None,
    images: Path | None,
    masks: Path | None,
    split: str,
    top: int,
    gallery: bool,
    out: Path,
    console: "Console",
) -> None:
    """Rank the regions where a model contradicts the labels, and write them."""
    from asymseg.data.dataset import open_dataset
    from asymseg.evaluation.label_errors import find_label_errors
    from asymseg.evaluation.suspects import write_suspects

    info = predictor.info
    dataset = open_dataset(data, images=images, masks=masks, holdout=info.holdout, classes=info.classes)
    with progress_bar(console, "label errors") as advance:
        suspects = find_label_errors(predictor, dataset, split, progress=advance)
    with progress_bar(console, "pictures") as advance:
        page = write_suspects(out, suspects, predictor, dataset, split, shown=top, pictures=gallery, progress=advance)
    for rank, suspect in enumerate(suspects[: min(top, 10)], start=1):
        sys.stdout.write(
            f"{rank:3}  {split}/{suspect.image}: {suspect.area} pixels labelled {suspect.labelled}, "
            f"the model sees {suspect.predicted} ({suspect.confidence:.2f})\n"
        )
    sys.stdout.write(f"{len(suspects)} likely label errors in {split}; see {page}\n")
