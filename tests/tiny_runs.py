"""Runs so small that a test can afford them, and what they leave."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import asymseg.training.train as module
from asymseg.config import Config, make_config
from asymseg.data.dataset import DataSet
from asymseg.evaluation.evaluate import Evaluation
from asymseg.evaluation.metrics import scores
from asymseg.training.log import read_log
from asymseg.training.train import train

TINY: dict[str, dict[str, Any]] = {
    "model": {
        "backbone": "resnet10t",
        "pretrained": False,
        "stages": (1, 2),
        "key_channels": 8,
        "value_channels": 8,
        "context_channels": 16,
        "aux_channels": 8,
        "pool_sizes": (1, 2),
    },
    "data": {"crop_size": (32, 64), "workers": 0},
    "train": {"steps": 2, "batch_size": 2, "validate_every": 2, "save_every": 2, "log_every": 3},
    "eval": {"workers": 0},
}


class Killed(BaseException):
    """Stands for a kill: nothing in the program may catch it."""


def tiny(**train_settings) -> Config:
    return make_config(TINY, {"train": train_settings})


def quiet() -> Console:
    return Console(file=io.StringIO(), soft_wrap=True)


def run(
    data: Path | DataSet | None, config: Config, out: Path, *, report: bool = False, **arguments
) -> tuple[Evaluation, str]:
    """The result, and what was shown; without `report` the best model is not measured once more in the end."""
    console = quiet()
    with pytest.MonkeyPatch.context() as patch:
        if not report:
            without_report(patch)
        result = train(data, config, out=out, console=console, **arguments)
    return result, console.file.getvalue()


def without_report(patch: pytest.MonkeyPatch) -> None:
    """It takes two thirds of the time of so small a run."""
    nothing = torch.zeros(5, 5, dtype=torch.int64)
    patch.setattr(module, "measure_best", lambda work, console: Evaluation(nothing, scores(nothing), ()))


def at_step(step: int, action: Callable[[], Any], monkeypatch) -> None:
    """Do something at the start of this step of the next run, counted from 0."""

    def acting(now: int, settings) -> float:
        if now == step:
            action()
        return original(now, settings)

    original = module.learning_rate
    monkeypatch.setattr(module, "learning_rate", acting)


def kill_before(step: int, monkeypatch) -> None:
    """Make the next run die at the start of this step, counted from 0."""

    def die() -> None:
        raise Killed

    at_step(step, die, monkeypatch)


def equal(one, two) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def state(out: Path) -> dict[str, Any]:
    return torch.load(out / "last" / "training.pt", weights_only=True)


def timeless(out: Path) -> list[dict[str, Any]]:
    timings = ("images_per_second", "wait_share")
    return [{key: value for key, value in entry.items() if key not in timings} for entry in read_log(out)]
