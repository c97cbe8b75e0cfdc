"""Train a network."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from asymseg.cli.terminal import fail, make_console
from asymseg.config import Config, make_config, read_config


def train(
    data: str | None = None,
    *,
    config: str | None = None,
    out: Path = Path("runs/train"),
    resume: Annotated[bool, Parameter(negative=())] = False,
    images: Path | None = None,
    masks: Path | None = None,
    print_config: Annotated[bool, Parameter(name="--print-config", negative=())] = False,
    preflight: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[Config | None, Parameter(name="*")] = None,
) -> None:
    """Train a network on a data folder, or on a folder of images and a folder of masks.

    Parameters
    ----------
    data
        Folder with images/{train,val}, masks/{train,val} and perhaps classes.json; or NAME:PATH of a known data set as
        it was downloaded, such as cityscapes:PATH.
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
    preflight
        Measure some steps for about half a minute, say what memory and time they take and which settings fit this
        machine, and stop; nothing is written.
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
    if preflight:
        from asymseg.training.preflight import preflight as measure

        sys.stdout.write("\n".join(measure(data, complete, make_console()).lines()) + "\n")
        return
    from asymseg.training.stopping import StoppedError
    from asymseg.training.train import train as run

    try:
        run(data, complete, out=out, resume=resume, console=make_console())
    except StoppedError as stop:
        fail(str(stop), code=stop.code)
