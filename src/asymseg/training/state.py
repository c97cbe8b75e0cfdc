"""What a run keeps so that it can go on: weights, optimizer, moving average, loss scale, step and best score.

Order of images, augmentation, dropout and learning rate are functions of the step alone and need no state.
"""

import shutil
import socket
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from asymseg.atomic import atomic_folder, previous_folder
from asymseg.errors import CheckpointError
from asymseg.model.checkpoint import write_model
from asymseg.model.download import file_sha256
from asymseg.model.foreign.pickles import FAULTS
from asymseg.model.info import ModelInfo
from asymseg.training.run import Progress, Run
from asymseg.training.sharding import kept_like, load_network, whole_state, with_weights

STATE = "training.pt"
SUMS = "SHA256SUMS"


def save_last(folder: Path, run: Run, info: ModelInfo) -> None:
    """Write `folder` as a model that can be used and a state that can be resumed, whole or not at all.

    The one before stays as `NAME.previous`. Each file's hash stands in `SHA256SUMS`, as `sha256sum -c` reads it. All
    processes call it, for they may have shares to give; the first one writes.
    """
    first = bool(run.accelerator.is_main_process)
    state: dict[str, Any] = {
        "progress": vars(run.progress),
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.module.state_dict() if run.average is not None else None,
        "scaler": run.accelerator.scaler.state_dict() if run.accelerator.scaler is not None else None,
    }
    state = whole_state(state, kept=first)
    if not first:
        return
    evaluated = with_weights(run.evaluated, run.outline, state["average"] or state["network"])
    with atomic_folder(folder, lasting=True) as temporary:
        write_model(temporary, evaluated, info)
        with (temporary / STATE).open("wb") as file:  # a file of Python's, for it says what a full disk says
            torch.save(state, file)
        sums = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(temporary.iterdir())]
        (temporary / SUMS).write_text("".join(sums), encoding="utf-8")


def load_last(folder: Path, run: Run) -> str | None:
    """Put `run` where it was saved; it stays as it is where nothing was saved yet.

    A damaged state is moved to `NAME.damaged` and the one before it is taken; what is given says so in a line. Raises
    CheckpointError where no state is whole, or it does not fit the settings, or processes have found different ones.
    """
    place, state, note = _newest_whole(folder)
    if state is not None:
        _restore(run, state, place / STATE)
    _need_same_step(run, folder)  # from here on all have read
    if note is None:
        return None
    damaged = folder.with_name(f"{folder.name}.damaged")
    if run.accelerator.is_main_process:
        shutil.rmtree(damaged, ignore_errors=True)
        folder.rename(damaged)  # or the next save would put it in place of the good one
    return f"{note}; it is {damaged} now, and the run goes on from the one before, step {run.progress.step}"


def _newest_whole(folder: Path) -> tuple[Path, dict[str, Any] | None, str | None]:
    """Where a whole state is, itself, and what is wrong with a newer one; None for what there is not."""
    note = None
    for place in (folder, previous_folder(folder)):
        if not place.is_dir():
            continue
        try:
            return place, _read_state(place), note
        except CheckpointError as error:
            note = str(error)
    if note is not None:
        raise CheckpointError(f"{note}, and no older state is whole; start anew with another --out")
    return folder, None, None


def _need_same_step(run: Run, folder: Path) -> None:
    """Every process goes on from the same step; raises CheckpointError on all of them where one does not."""
    if run.accelerator.num_processes == 1:
        return
    found = gather_object([(run.progress.step, socket.gethostname())])
    for rank, (step, host) in enumerate(found):
        if step != found[0][0]:
            raise CheckpointError(
                f"{folder}: rank {rank} ({host}) finds step {step} there, and the first process ({found[0][1]}) step "
                f"{found[0][0]}; put --out on a disk that all machines see"
            )


def _read_state(folder: Path) -> dict[str, Any]:
    """What `save_last` wrote there. Raises CheckpointError where it is not that any more."""
    path = folder / STATE
    try:
        if (folder / SUMS).is_file():
            listed = dict(line.split("  ")[::-1] for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
            if listed[STATE] != file_sha256(path):
                raise ValueError("not the bytes that were saved")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (*FAULTS, OSError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())[:200]})") from None
    return state


def _restore(run: Run, state: dict[str, Any], path: Path) -> None:
    """Put `run` where `state`, read from `path`, says."""
    try:
        load_network(run.network, state["network"])
        _load_optimizer(run.optimizer, state["optimizer"])
        if run.average is not None:
            if state["average"] is None:
                raise ValueError("it holds no moving average")
            load_network(run.average.module, state["average"])
        if run.accelerator.scaler is not None and state["scaler"] is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        run.progress = Progress(**state["progress"])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be resumed with these settings ({reason}); "
            "keep the model and optimizer settings of the run, or start anew with another --out"
        ) from None


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over momenta and the like; rates, decay and the rest stay as the settings of now say."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    saved, own = (
        [(set(group), len(group["params"])) for group in groups]
        for groups in (state["param_groups"], optimizer.param_groups)
    )
    if saved != own:
        raise ValueError("another optimizer, or other parts of the network frozen")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moved = {
        number: {
            name: kept_like(value, parameters[number]) if name != "step" and isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({"state": moved, "param_groups": state["param_groups"]})
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        group.update(kept)
