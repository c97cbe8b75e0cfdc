"""Networks by one line, from the hub or a folder, and onto the hub with a card that says what they are."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from torch import nn

from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import write_model
from asymseg.model.folded import FoldedANNNet
from asymseg.model.info import ModelInfo
from asymseg.model.source import open_model

LICENSES = (
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-3.0",
    "mit",
)
"""Licences whose short names the hub knows; it takes any other as "other" with a name."""


@runtime_checkable
class Loaded(Protocol):
    """A network and what travels with it, as a predictor has them."""

    network: Any
    info: ModelInfo


def from_pretrained(
    source: str | Path,
    *,
    backbone: nn.Module | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> ANNNet | FoldedANNNet:
    """The network, in evaluation mode on the CPU: normalised images B C H W in, logits out.

    `asymseg.load` gives the same network with all it needs to take real images.

    Args:
        source: OWNER/NAME on the hub, a model folder, or anything else that `asymseg.load` takes.
        backbone: Needed where the network was built around a module of your own.
        revision: Branch, tag or commit on the hub.
        token: Of the hub, for a model that is not public.

    Raises:
        CheckpointError: There is no such model, or it cannot be fetched or loaded.
    """
    return open_model(source, backbone, revision, token)[0]


def push_to_hub(
    model: str | Path | Loaded,
    repo_id: str,
    *,
    license: str = "",
    private: bool = False,
    revision: str | None = None,
    message: str = "Add the model",
    token: str | None = None,
) -> str:
    """The address of what was uploaded: the model folder, its card with metrics and licence in the hub's form.

    Args:
        model: A predictor, a model folder, or anything else that `asymseg.load` takes.
        repo_id: OWNER/NAME; it is made where there is none yet.
        license: Short name such as "apache-2.0", in place of the one that the model states.
        private: Whether a new repository is seen by its owner alone.
        revision: Branch to upload to; by default the main one.
        message: Of the commit.
        token: Of the hub; by default that of `hf auth login`.

    Raises:
        CheckpointError: The model cannot be loaded, or the hub does not take it.
    """
    network, info = (model.network, model.info) if isinstance(model, Loaded) else open_model(model)
    if isinstance(model, Loaded) and isinstance(network, FoldedANNNet):
        raise CheckpointError(
            "the predictor holds a folded network, which cannot be trained; push the model's folder, or load it with "
            "fold=False"
        )
    if not isinstance(network, ANNNet | FoldedANNNet):
        raise CheckpointError(
            "the predictor holds an exported file, whose weights are not to be had; push the model's folder"
        )
    info = replace(info, license=license or info.license)
    api = HfApi(token=token)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, network, info)
        card = folder / "README.md"
        card.write_text(_hub_card(card.read_text(encoding="utf-8"), info, repo_id), encoding="utf-8")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message)
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{repo_id}: the hub did not take the model ({reason}); see to the name OWNER/NAME and to a token that "
                "may write, by hf auth login"
            ) from None
    return str(commit.commit_url)


def _hub_card(card: str, info: ModelInfo, repo_id: str) -> str:
    """A model folder's card as the hub reads it: what it can filter by on top, and how to use the model from there."""
    short = info.license.lower()
    data = ModelCardData(
        license=(short if short in LICENSES else "other") if info.license else None,
        license_name=info.license if info.license and short not in LICENSES else None,
        library_name="asymseg",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "asymmetric-non-local", "pytorch"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=_results(info),
    )
    use = f'In Python: `asymseg.load("{repo_id}")("image.jpg").mask`, or the bare network by '
    use += f'`asymseg.from_pretrained("{repo_id}")`.'
    return f"---\n{data.to_yaml()}\n---\n\n{card.replace('THIS_FOLDER', repo_id)}\n{use}\n"


def _results(info: ModelInfo) -> list[EvalResult] | None:
    """What was measured here, and not what others reported, for the hub's tables."""
    miou = info.metrics.get("miou")
    if not isinstance(miou, float):
        return None
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="image-segmentation",
            dataset_name=info.source or "not stated",
            dataset_split=str(info.metrics.get("split", "")) or None,
            metric_type="mean_iou",
            metric_name="mIoU",
            metric_value=round(miou, 4),
        )
    ]
