"""A network from whatever names one: a folder, a checkpoint, published weights, the hub."""

import re
from difflib import get_close_matches
from pathlib import Path

from torch import nn

from asymseg.atomic import surviving_folder
from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.asking import attempts_unsaid
from asymseg.model.checkpoint import CONFIG, WEIGHTS, load_model
from asymseg.model.fetching import fetch
from asymseg.model.folded import FoldedANNNet
from asymseg.model.foreign.importing import import_checkpoint
from asymseg.model.info import ModelInfo
from asymseg.model.zoo import ZOO

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_model(source: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The model folder or checkpoint file that `source` names, as `open_model` takes it; fetched if not here yet.

    Raises CheckpointError where there is none, or it cannot be fetched.
    """
    path, name = Path(source), str(source)
    if surviving_folder(path / "best") and not (path / CONFIG).is_file():
        return path / "best"
    if path.is_file():
        return path.parent if path.name in (WEIGHTS, CONFIG) and (path.parent / CONFIG).is_file() else path
    if surviving_folder(path) is not None:
        return path
    if name in ZOO:
        return fetch(ZOO[name])
    if HUB_ID.fullmatch(name):
        return _from_hub(name, revision, token)
    close = get_close_matches(name, ZOO, n=3)
    if close:
        raise CheckpointError(
            f"{name}: neither a folder or file here nor published weights; close: {', '.join(close)}; "
            "asymseg models lists them all"
        )
    return path  # who loads it says what a model folder is


def open_model(
    source: str | Path,
    backbone: nn.Module | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> tuple[ANNNet | FoldedANNNet, ModelInfo]:
    """The network, in evaluation mode on the CPU, and what travels with it.

    What lies on the disk comes first, then the names of published weights, then the hub; what is not on the disk is
    fetched once and kept.

    Args:
        source: A model folder; a run's folder, whose best model is taken; a checkpoint file of the authors',
            mmsegmentation's or PaddleSeg's; a name that `asymseg models` lists; or OWNER/NAME on the hub.
        backbone: Needed where the network was built around a module of your own.
        revision: Branch, tag or commit on the hub.
        token: Of the hub, for a model that is not public.

    Raises:
        CheckpointError: There is no such model, or it cannot be fetched or loaded.
    """
    found = find_model(source, revision, token)
    if found.is_file():
        network, info = import_checkpoint(found)
        return network.eval(), info
    try:
        return load_model(found, backbone)
    except CheckpointError as error:
        if str(source) not in ZOO or found == Path(source):
            raise
        raise CheckpointError(f"{error}; or remove {found}, and {source} is fetched again") from None


def _from_hub(hub_id: str, revision: str | None, token: str | None) -> Path:
    """The model's folder in the local cache of the hub; only the files of a model are fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [WEIGHTS, CONFIG, "README.md"]
    try:
        with attempts_unsaid():
            return Path(snapshot_download(hub_id, revision=revision, token=token, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{hub_id}: neither a folder here nor a model that could be fetched from the hub ({reason}); "
            "mend the path or the name, or see to the network"
        ) from None
