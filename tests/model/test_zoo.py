"""Published weights: the table, and one of them fetched, imported, kept, and damaged in many ways."""

import hashlib
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from file_server import serving
from filelock import FileLock

from asymseg.classes import Classes
from asymseg.errors import CheckpointError
from asymseg.model import download, fetching, zoo
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import load_model, save_model
from asymseg.model.fetching import fetch
from asymseg.model.foreign.known_classes import CITYSCAPES, VOC2012
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.model.source import open_model
from asymseg.model.zoo import ZOO, cached_folder, home

NAME = "ann-r101-cityscapes-769x769-40k"
CONTENT = np.random.default_rng(0).bytes(50_000)
SHA = hashlib.sha256(CONTENT).hexdigest()[:8]


@cache
def tiny():
    torch.manual_seed(0)
    sizes = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0}
    return ANNNet(19, "resnet10t", stages=(1, 2), **sizes).eval()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror with the file of NAME, whose import is known; what was imported is listed in `server.imported`."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("ASYMSEG_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(ZOO, NAME, replace(ZOO[NAME], sha256=SHA))
    with serving(CONTENT) as running:
        monkeypatch.setenv("ASYMSEG_MIRROR", running.address)
        running.imported = []

        def importing(path, classes, align_corners):
            running.imported.append((path, path.read_bytes()))
            running.told = (classes, align_corners)
            return tiny(), ModelInfo(Classes(tuple(map(str, range(19)))), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "BGR")

        monkeypatch.setattr(fetching, "import_checkpoint", importing)
        yield running


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


MODEL = [f"models/{NAME}/{name}" for name in ("README.md", "config.json", "model.safetensors")]


def test_the_table_as_it_was_published():
    """Copied from the tables of the two projects, not from the library."""
    openmmlab = "https://download.openmmlab.com/mmsegmentation/v0.5/ann/"
    paddle = "https://bj.bcebos.com/paddleseg/dygraph/"
    addresses = {entry.address for entry in ZOO.values()}
    assert len(addresses) == len(ZOO) == 20
    assert sum(address.startswith(openmmlab) for address in addresses) == 16
    entry = ZOO["ann-r101-cityscapes-512x1024-40k"]
    folder = "ann_r101-d8_512x1024_40k_cityscapes"
    assert entry.address == f"{openmmlab}{folder}/{folder}_20200605_095243-adf6eece.pth"
    assert (entry.sha256, entry.miou, entry.miou_multi_scale, entry.align_corners) == ("adf6eece", 76.55, 78.85, False)
    entry = ZOO["ann-r50-voc12aug-512x512-20k"]
    folder = "ann_r50-d8_512x512_20k_voc12aug"
    assert entry.address == f"{openmmlab}{folder}/{folder}_20200617_222246-dfcb1c62.pth"
    assert (entry.dataset, entry.steps, entry.crop) == ("VOC 2012 + aug", 20_000, (512, 512))
    entry = ZOO["ann-r101vd-cityscapes-512x1024-80k"]
    assert entry.address == f"{paddle}cityscapes/ann_resnet101_os8_cityscapes_1024x512_80k/model.pdparams"
    assert (entry.sha256, entry.miou, entry.miou_multi_scale) == ("", 80.61, 81.50)
    entry = ZOO["ann-r50vd-voc12aug-512x512-40k"]
    assert entry.address == f"{paddle}pascal_voc12/ann_resnet50_os8_voc12aug_512x512_40k/model.pdparams"


def test_every_hash_is_the_one_in_the_name_of_its_file():
    published = [entry for entry in ZOO.values() if entry.framework == "mmsegmentation"]
    assert all(entry.address.endswith(f"-{entry.sha256}.pth") and len(entry.sha256) == 8 for entry in published)
    assert len({entry.sha256 for entry in published}) == 16
    assert {entry.crop for entry in ZOO.values() if entry.align_corners} == {(769, 769)}
    assert {entry.crop for entry in ZOO.values() if entry.slides} == {(769, 769)}


@pytest.mark.parametrize(
    ("backbone", "aux_channels", "name"),
    [("resnet50c", 256, "ann-r50-cityscapes-512x1024-40k"), ("resnet101d", 512, "ann-r101vd-cityscapes-512x1024-80k")],
)
def test_the_sizes_are_those_of_the_networks(backbone, aux_channels, name, monkeypatch):
    with torch.device("meta"):
        monkeypatch.setattr("asymseg.model.backbone.TimmBackbone._fault_with_multiples_of", lambda *_: None)
        network = ANNNet(19, backbone, aux_channels=aux_channels)
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    assert round(size / 1e6) == ZOO[name].megabytes


def test_fetched_checked_imported_and_kept(server, capsys):
    folder = fetch(ZOO[NAME])
    assert folder == home() / "models" / NAME
    assert server.imported == [(home() / "downloads" / f"{NAME}.pth", CONTENT)]
    assert [path for path, _ in server.requests] == [ZOO[NAME].address.removeprefix("https://download.openmmlab.com")]
    assert [path for path in files(home()) if not path.endswith(".lock")] == MODEL
    said = capsys.readouterr().err
    assert NAME in said
    assert "261 MB" in said
    assert str(home()) in said.replace("\n", "")


def test_what_the_file_says_and_what_its_publisher_says_travel_together(server):
    network, info = open_model(NAME)
    assert not network.training
    assert (info.mean, info.channel_order) == ((0.1, 0.2, 0.3), "BGR")
    assert info.license == "Apache-2.0"
    assert ZOO[NAME].address in info.source
    assert "mmsegmentation, Cityscapes, crops of 769x769" in info.source
    assert info.seeing == Seeing("slide", (769, 769), None, "flat", (1.0,), False, "mixed")
    assert info.seeing.steps == (513, 513)
    assert info.metrics == {"reported_miou": 0.7932, "reported_miou_multi_scale_flip": 0.8094}
    for name, tensor in tiny().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_offline_afterwards(server, monkeypatch):
    open_model(NAME)
    monkeypatch.setenv("ASYMSEG_MIRROR", "http://127.0.0.1:1")
    network, _ = open_model(NAME)
    assert network.num_classes == 19
    assert len(server.requests) == len(server.imported) == 1


@pytest.mark.parametrize(
    ("name", "classes", "align_corners"),
    [
        (NAME, CITYSCAPES, True),
        ("ann-r50vd-cityscapes-512x1024-80k", CITYSCAPES, False),
        ("ann-r101vd-voc12aug-512x512-40k", VOC2012, False),
        ("ann-r50-ade20k-512x512-80k", None, False),
    ],
)
def test_the_importer_is_told_what_a_file_may_not_say(server, monkeypatch, name, classes, align_corners):
    monkeypatch.setitem(ZOO, name, replace(ZOO[name], sha256=""))
    fetch(ZOO[name])
    assert server.told == (classes, align_corners)


def test_a_broken_download_goes_on_in_the_next_call(server):
    server.break_off_after = [20_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match="20000 bytes are kept"):
        fetch(ZOO[NAME])
    assert server.imported == []
    fetch(ZOO[NAME])
    assert server.requests[-1][1] == "bytes=20000-"
    assert server.imported[0][1] == CONTENT


def test_wrong_bytes_are_never_imported(server):
    server.content = CONTENT[::-1]
    with pytest.raises(CheckpointError, match="not the file that was published"):
        fetch(ZOO[NAME])
    assert server.imported == []
    assert not cached_folder(ZOO[NAME])


def test_a_file_fetched_by_other_means(server):
    server.statuses = [404] * 9
    with pytest.raises(CheckpointError, match="404") as caught:
        fetch(ZOO[NAME])
    place = Path(str(caught.value).rpartition("put it at ")[2])
    place.write_bytes(CONTENT)
    assert load_model(fetch(ZOO[NAME]))[1].license == "Apache-2.0"
    assert len(server.requests) == 1


def test_a_file_that_cannot_be_imported_leaves_no_model(server, monkeypatch):
    def refusing(path, classes, align_corners):
        raise CheckpointError(f"{path}: asks for os.system")

    monkeypatch.setattr(fetching, "import_checkpoint", refusing)
    with pytest.raises(CheckpointError, match=r"os\.system"):
        fetch(ZOO[NAME])
    assert not cached_folder(ZOO[NAME])


def test_two_at_once_fetch_it_once(server):
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(ZOO[NAME]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [home() / "models" / NAME] * 4
    assert len(server.imported) == len(server.requests) == 1


def test_one_waits_for_the_other_and_takes_what_it_fetched(server, capsys):
    """The other process is played by a lock of its own, and by the folder that it leaves."""
    folder = home() / "models" / NAME
    folder.parent.mkdir(parents=True)
    other = FileLock(folder.with_name(f"{NAME}.lock"), thread_local=False)
    other.acquire()
    waiting = threading.Thread(target=fetch, args=(ZOO[NAME],))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    save_model(folder, tiny(), ModelInfo(Classes(tuple("abcdefghijklmnopqrs")), (0.5,) * 3, (0.5,) * 3))
    other.release()
    waiting.join(10)
    assert not waiting.is_alive()
    assert server.requests == []
    assert f"another process is fetching {NAME}" in capsys.readouterr().err


def test_a_kept_model_that_was_damaged_says_the_cure(server):
    folder = fetch(ZOO[NAME])
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"damaged .* or remove .*, and ann-r101.* is fetched again") as caught:
        open_model(NAME)
    assert str(folder) in str(caught.value)


def test_a_home_that_takes_nothing(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ASYMSEG_HOME", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="cannot be written .*; set ASYMSEG_HOME to a folder with room for it"):
        fetch(ZOO[NAME])


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {}, "user/.cache/asymseg"),
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/asymseg"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "user/Library/Caches/asymseg"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/asymseg"),
        ("win32", {}, "user/AppData/Local/asymseg"),
        ("linux", {"ASYMSEG_HOME": "/mine", "XDG_CACHE_HOME": "/caches"}, "/mine"),
        ("linux", {"ASYMSEG_HOME": "~/mine"}, "user/mine"),
    ],
)
def test_the_place_for_what_is_fetched(monkeypatch, tmp_path, platform, variables, place):
    monkeypatch.setattr(zoo.sys, "platform", platform)
    for name in ("ASYMSEG_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert home() == tmp_path / place
