"""Measure time and memory."""

from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from asymseg.benchmarking.settings import BenchmarkSettings
from asymseg.cli.terminal import make_console
from asymseg.config import Config, make_config, read_config

benchmark = cyclopts.App(name="benchmark", help="Measure time and memory beside rivals, in turn and in one process.")


@benchmark.command
def blocks(
    *, out: Path | None = None, settings: Annotated[BenchmarkSettings | None, Parameter(name="*")] = None
) -> None:
    """Measure APNB against the same block written plainly and the symmetric non-local block, over sizes.

    Parameters
    ----------
    out
        Folder for results.json, results.md and pictures.
    """
    from asymseg.benchmarking.benchmark import blocks as run

    run(settings or BenchmarkSettings(), out, make_console())


@benchmark.command
def head(*, out: Path | None = None, settings: Annotated[BenchmarkSettings | None, Parameter(name="*")] = None) -> None:
    """Measure ANNNet's head, folded and in training, against the plain one and its bare 3x3 convolution.

    Parameters
    ----------
    out
        Folder for results.json, results.md and pictures.
    """
    from asymseg.benchmarking.benchmark import head as run

    run(settings or BenchmarkSettings(), out, make_console())


@benchmark.command
def network(
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

    run(settings or BenchmarkSettings(), backbone, out, make_console(), compiling=compile, training=training)


@benchmark.command
def loader(
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
    from asymseg.benchmarking.loader import loader as run
    from asymseg.benchmarking.loader import loader_command

    command = loader_command(data, config, given, quick=quick)
    run(data, complete, out, make_console(), command=command, quick=quick)
