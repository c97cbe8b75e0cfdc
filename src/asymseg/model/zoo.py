"""The ANN weights that were published elsewhere: what they are, what was reported of them, and where they lie.

Addresses, hashes and mean IoUs are those of the tables in mmsegmentation's configs/ann/README.md and PaddleSeg's
configs/ann/README.md. The reported mean IoUs are theirs, on validation images, and were not measured again here.
Nothing heavy is imported, so that listing them is quick.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asymseg.atomic import surviving_folder

HOME = "ASYMSEG_HOME"

MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5/ann"
PADDLE = "https://bj.bcebos.com/paddleseg/dygraph"
DATASETS = {"cityscapes": "Cityscapes", "ade20k": "ADE20K", "voc12aug": "VOC 2012 + aug"}
BACKBONES = {"r50": "ResNet-50 v1c", "r101": "ResNet-101 v1c", "r50vd": "ResNet-50 vd", "r101vd": "ResNet-101 vd"}
MEGABYTES = {"r50": 185, "r101": 261, "r50vd": 195, "r101vd": 271}
"""Of the tensors alone, in float32; the publishers state no sizes."""


Framework = Literal["mmsegmentation", "PaddleSeg"]


@dataclass(frozen=True)
class Published:
    """One set of published weights."""

    name: str
    """What a user types."""
    dataset: str
    backbone: str
    crop: tuple[int, int]
    """Height and width of the images it was trained on."""
    steps: int
    miou: float
    """Reported on the validation images at one scale, in percent."""
    miou_multi_scale: float
    """Reported over scales and flips."""
    megabytes: int
    license: str
    """Of the code base that published it. The data set's own terms come on top."""
    framework: Framework
    address: str
    sha256: str
    """How the file's hash begins; empty where none was published."""

    @property
    def slides(self) -> bool:
        """The networks for 769x769 crops were measured by windows of that size, 513 apart; all others whole."""
        return self.crop == (769, 769)

    @property
    def align_corners(self) -> bool:
        """mmsegmentation's networks for 769x769 crops upsample by the corners, all others by the pixels' edges."""
        return self.crop == (769, 769)


def _mmseg(backbone: str, data: str, crop: str, steps: int, stamp: str, miou: float, best: float) -> Published:
    file = f"ann_{backbone}-d8_{crop}_{steps}k_{data}"
    address = f"{MMSEG}/{file}/{file}_{stamp}.pth"
    return _published(backbone, data, crop, steps, miou, best, "mmsegmentation", address, stamp.rpartition("-")[2])


def _paddle(backbone: str, data: str, crop: str, steps: int, miou: float, best: float) -> Published:
    height, width = _size(crop)  # their names say width x height
    folder = {"cityscapes": "cityscapes", "voc12aug": "pascal_voc12"}[data]
    file = f"ann_resnet{backbone[1:-2]}_os8_{data}_{width}x{height}_{steps}k"
    return _published(
        backbone, data, crop, steps, miou, best, "PaddleSeg", f"{PADDLE}/{folder}/{file}/model.pdparams", ""
    )


def _published(
    backbone: str,
    data: str,
    crop: str,
    steps: int,
    miou: float,
    best: float,
    framework: Framework,
    address: str,
    sha256: str,
) -> Published:
    return Published(
        name=f"ann-{backbone}-{data}-{crop}-{steps}k",
        dataset=DATASETS[data],
        backbone=BACKBONES[backbone],
        crop=_size(crop),
        steps=steps * 1000,
        miou=miou,
        miou_multi_scale=best,
        megabytes=MEGABYTES[backbone],
        license="Apache-2.0",
        framework=framework,
        address=address,
        sha256=sha256,
    )


def _size(crop: str) -> tuple[int, int]:
    height, _, width = crop.partition("x")
    return int(height), int(width)


_TABLE = (
    _mmseg("r50", "cityscapes", "512x1024", 40, "20200605_095211-049fc292", 77.40, 78.57),
    _mmseg("r101", "cityscapes", "512x1024", 40, "20200605_095243-adf6eece", 76.55, 78.85),
    _mmseg("r50", "cityscapes", "769x769", 40, "20200530_025712-2b46b04d", 78.89, 80.46),
    _mmseg("r101", "cityscapes", "769x769", 40, "20200530_025720-059bff28", 79.32, 80.94),
    _mmseg("r50", "cityscapes", "512x1024", 80, "20200607_101911-5a9ad545", 77.34, 78.65),
    _mmseg("r101", "cityscapes", "512x1024", 80, "20200607_013728-aceccc6e", 77.14, 78.81),
    _mmseg("r50", "cityscapes", "769x769", 80, "20200607_044426-cc7ff323", 78.88, 80.57),
    _mmseg("r101", "cityscapes", "769x769", 80, "20200607_013713-a9d4be8d", 78.80, 80.34),
    _mmseg("r50", "ade20k", "512x512", 80, "20200615_014818-26f75e11", 41.01, 42.30),
    _mmseg("r101", "ade20k", "512x512", 80, "20200615_014818-c0153543", 42.94, 44.18),
    _mmseg("r50", "ade20k", "512x512", 160, "20200615_231733-892247bc", 41.74, 42.62),
    _mmseg("r101", "ade20k", "512x512", 160, "20200615_231733-955eb1ec", 42.94, 44.06),
    _mmseg("r50", "voc12aug", "512x512", 20, "20200617_222246-dfcb1c62", 74.86, 76.13),
    _mmseg("r101", "voc12aug", "512x512", 20, "20200617_222246-2fad0042", 77.47, 78.70),
    _mmseg("r50", "voc12aug", "512x512", 40, "20200613_231314-b5dac322", 76.56, 77.51),
    _mmseg("r101", "voc12aug", "512x512", 40, "20200613_231314-bd205bbe", 76.70, 78.06),
    _paddle("r50vd", "cityscapes", "512x1024", 80, 79.09, 79.90),
    _paddle("r101vd", "cityscapes", "512x1024", 80, 80.61, 81.50),
    _paddle("r50vd", "voc12aug", "512x512", 40, 80.82, 81.67),
    _paddle("r101vd", "voc12aug", "512x512", 40, 79.62, 80.33),
)

ZOO = {entry.name: entry for entry in _TABLE}
"""By the name a user types."""


def home() -> Path:
    """The folder for what is fetched: `ASYMSEG_HOME`, or the place for caches on this system."""
    named = os.environ.get(HOME)
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "asymseg"


def cached_folder(entry: Published) -> Path | None:
    """The model folder of published weights, where it was fetched before."""
    return surviving_folder(home() / "models" / entry.name)
