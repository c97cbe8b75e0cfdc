"""A small model, served in this process."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

import asymseg
from asymseg.classes import Classes
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.serving.app import make_app
from asymseg.serving.examples import Examples
from asymseg.serving.guard import Guard
from asymseg.serving.room import Limits
from asymseg.serving.service import Service

CLASSES = Classes(("sky", "road", "tree"), palette=((1, 2, 3), (40, 50, 60), (255, 128, 0)))
INFO = ModelInfo(
    CLASSES,
    (0.5,) * 3,
    (0.25,) * 3,
    source="made up",
    license="Apache-2.0",
    metrics={"miou": 0.5, "iou": [0.1, float("nan")]},
)

Starting = Callable[..., AbstractContextManager[TestClient]]


def write_model(folder: Path, seed: int) -> Path:
    """A model folder; seeds differ in their weights alone."""
    torch.manual_seed(seed)
    narrow = {"key_channels": 8, "value_channels": 8, "context_channels": 16, "aux_channels": 0}
    network = ANNNet(3, "resnet10t", pretrained=False, stages=(1, 2), **narrow).eval()
    for layer in (network.fusion.output, network.context.output, network.classifier):
        nn.init.normal_(layer.weight, std=1.0)
    pixels = torch.from_numpy(draw(96, 120)).permute(2, 0, 1)[None] / 255  # h w c -> 1 c h w
    with torch.no_grad():  # so that each class is the best one somewhere
        logits = network((pixels - 0.5) / 0.25)
        scale = logits.std(dim=(0, 2, 3))
        network.classifier.weight /= scale[:, None, None, None]
        network.classifier.bias /= scale
        network.classifier.bias -= logits.mean(dim=(0, 2, 3)) / scale
    save_model(folder, network, INFO)
    return folder


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of coarse colours, so that classes are in pieces and not in dust."""
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 12), -(-width // 12), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(12, 0).repeat(12, 1)[:height, :width])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("serving") / "street", seed=4)
    mask = asymseg.load(folder, "cpu")(draw(50, 70)).mask
    assert np.bincount(mask.ravel(), minlength=3).min() > 100  # one that says the same everywhere would prove nothing
    return folder


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers otherwise."""
    return write_model(tmp_path_factory.mktemp("serving") / "other", seed=1)


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    return draw


@pytest.fixture(scope="session")
def starting(model: Path) -> Starting:
    """Starts a server with what differs from the usual, for a client that is one of its own page."""

    @contextmanager
    def start(
        sources: dict[str, str] | None = None,
        *,
        examples: Path | None = None,
        limits: dict[str, Any] | None = None,
        **guard: Any,
    ) -> Iterator[TestClient]:
        service = Service(sources or {"street": str(model)}, "cpu", Limits(**(limits or {})))
        app = Guard(make_app(service, Examples(examples)), observe=service.metrics.observe, **guard)
        client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.service = service
        with client:
            yield client

    return start


@pytest.fixture(scope="module")
def client(starting: Starting) -> Iterator[TestClient]:
    """Of a server as it is by default."""
    with starting() as started:
        yield started
