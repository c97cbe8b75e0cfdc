"""A hub that does not answer: the library tries for a while, and the user reads one line."""

import logging
import socket
from collections.abc import Iterator

import huggingface_hub
import pytest
from huggingface_hub.utils import _http

from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.source import find_model


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[list[str]]:
    """What the library logs while the hub is a closed port of this machine."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for name, value in (("HF_HUB_OFFLINE", False), ("ENDPOINT", address), ("HF_HUB_CACHE", str(tmp_path))):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        log = logging.getLogger("huggingface_hub")
        log.addHandler(handler)
        yield lines
        log.removeHandler(handler)


def test_attempts_are_not_told_one_by_one(said: list[str]) -> None:
    with pytest.raises(CheckpointError, match="timm's weights of resnet10t: could not be had or loaded"):
        ANNNet(2, "resnet10t", pretrained=True)
    with pytest.raises(CheckpointError, match=r"nobody/model: neither a folder here .*; mend the path or the name"):
        find_model("nobody/model")
    assert said == []
    with pytest.raises(OSError, match="locate the file"):
        huggingface_hub.hf_hub_download("nobody/model", "config.json")
    assert any("Retrying" in line for line in said)
