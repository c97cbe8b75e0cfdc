"""How fast training images are read: each stage by itself, and the loader beside decoding and resizing alone."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

from asymseg.benchmarking.drawing import draw_stages
from asymseg.benchmarking.figures import Figures, paired_ratio
from asymseg.benchmarking.machine import facts
from asymseg.benchmarking.report import say_facts, show, write_results
from asymseg.benchmarking.settings import words
from asymseg.benchmarking.tables import TextTable, milliseconds, three_digits
from asymseg.config import Config
from asymseg.data.measure import LoaderFigures, measure_loader
from asymseg.errors import DataError
from asymseg.training.plan import model_info, open_data

QUICK = {"rounds": 2, "batches": 1, "samples": 2}
RIVAL = "decoding and resizing alone"

READING = """\
- stages: each by itself, in one process and one thread; the median over images.
- training loader: images per second of whole batches as training gets them, after as many processes have begun.
- decoding and resizing alone: the same files through Pillow, resized to the crop and handed to nobody, by as many
  processes. The two took turns; ratios are medians within a round, ± is half of the middle half.
"""


def loader(
    data: Path | None,
    config: Config,
    out: Path | None,
    console: Console,
    *,
    command: str = "",
    quick: bool = False,
) -> LoaderFigures:
    """Measure the loader on the training images of a data set; print tables, and write files into `out`."""
    dataset = open_data(data, config)
    if not dataset.splits.get("train"):
        raise DataError(f"{data or config.data.images}: no training images to measure with; put them into images/train")
    info = model_info(config, dataset)
    with console.status("measuring"):
        figures = measure_loader(
            dataset,
            config.data,
            channels=config.model.in_channels,
            mean=info.mean,
            std=info.std,
            batch_size=config.train.batch_size,
            **(QUICK if quick else {}),
        )
    known = facts(torch.device("cpu"), command) | {"images": str(len(dataset.splits["train"]))}
    say_facts(known, console)
    tables = loader_tables(figures)
    show(tables, console)
    if out is not None:
        draw_stages(figures, out / "stages.png")
        parts = [f"### {table.title}\n\n{table.to_markdown()}" for table in tables]
        write_results(out, {**known, **asdict(figures)}, ["![stages](stages.png)", *parts, READING.rstrip()], known)
        console.print(f"wrote {out / 'results.md'}, results.json and a picture")
    return figures


def loader_command(
    data: Path | None, config: str | None, given: Mapping[str, Mapping[str, object]], *, quick: bool = False
) -> str:
    """What to type for the same benchmark again; of files and folders the names alone."""
    typed = ["asymseg", "benchmark", "loader", *([] if data is None else words(data))]
    if config is not None:
        typed += ["--config", *words(Path(config))]
    for section, knobs in given.items():
        for name, value in knobs.items():
            typed += [f"--{section}.{name}", *words(value)]
    return shlex.join([*typed, "--quick"] if quick else typed)


def loader_tables(figures: LoaderFigures) -> list[TextTable]:
    """The stages, and the loader beside its rival."""
    typical = {name: median(seconds) for name, seconds in figures.stages.items()}
    whole = sum(typical.values())
    stages = tuple((name, milliseconds(time), f"{time / whole:.0%}") for name, time in typical.items())
    crop = "x".join(map(str, figures.crop_size))
    rows = tuple(
        (
            f"**{name}**" if ours else name,
            f"{three_digits(median(speeds))} ±{Figures(name, figures.crop_size, tuple(speeds)).spread:.0%}",
            three_digits(paired_ratio(speeds, figures.rival)),
        )
        for name, speeds, ours in (("training loader", figures.loader, True), (RIVAL, figures.rival, False))
    )
    return [
        TextTable(f"Stages, crop {crop}", ("stage", "time", "share"), (*stages, ("all", milliseconds(whole), "100%"))),
        TextTable(
            f"Loader, workers {figures.workers}, batch {figures.batch_size}, crop {crop}",
            ("form", "images/s", "images/s / alone"),
            rows,
        ),
    ]
