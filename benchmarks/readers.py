"""Everything that reads a file of the user's: whole files of every kind, and what a command does with such a file."""

import contextlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile
import torch
from accelerate import Accelerator
from mutations import changed, changed_json, changed_png, changed_text
from PIL import Image
from uploads import saved, whole_files

import asymseg
from asymseg.classes import IGNORE, Classes
from asymseg.config import make_config, read_config
from asymseg.data.dataset import open_dataset, read_pair
from asymseg.data.files import image_size, read_image, read_mask
from asymseg.evaluation.records import read_record
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.foreign.exporting import to_mmseg
from asymseg.model.foreign.importing import read_foreign
from asymseg.model.info import ModelInfo
from asymseg.prediction.many.files import Wanted, rest_of
from asymseg.prediction.many.manifest import Done, record
from asymseg.prediction.many.planning import plan_files
from asymseg.prediction.raster.pixels import CLASSES as PIXELS
from asymseg.prediction.raster.predict import Context, predict_raster
from asymseg.prediction.raster.reading import Raster
from asymseg.serving.guard import read_keys
from asymseg.training.run import Progress, Run
from asymseg.training.state import load_last, save_last

SIZE = (24, 32)
CLASSES = Classes(("ground", "disc", "beacon"), ((90, 90, 90), (0, 0, 255), (255, 0, 0)))
INFO = ModelInfo(CLASSES, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TINY: dict[str, Any] = {
    **{"stages": (1, 2), "key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0},
    "pool_sizes": (1, 2),
}

Change = Callable[[Random, list[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    """A kind of file: where it stands, what it may hold, how that is changed, and what reads it."""

    path: Path
    wholes: list[bytes]
    changes: tuple[Change, ...]
    read: Callable[[], object]
    """Raises what a command that is given the file would raise; an AssertionError where the answer is no answer."""


def images(folder: Path) -> Reader:
    """Pictures in every format, and arrays."""
    path = folder / "image"

    def read() -> None:
        image = read_image(path)
        assert image.shape[0] == 3
        assert image_size(path) == tuple(image.shape[1:])

    return Reader(path, whole_files(), (changed, changed, changed_png), read)


def masks(folder: Path) -> Reader:
    """Ids and colours in every format that keeps them."""
    path = folder / "mask"
    ids = np.random.default_rng(0).integers(0, 3, SIZE).astype(np.uint8)
    colours = Image.fromarray(np.array(CLASSES.palette, dtype=np.uint8)[ids])
    indexed = Image.fromarray(ids)
    indexed.putpalette([0] * 768)
    wholes = [saved(picture, kind) for picture in (Image.fromarray(ids), indexed) for kind in ("PNG", "BMP", "TIFF")]
    wholes += [saved(Image.fromarray(ids.astype(np.uint16)), kind) for kind in ("PNG", "TIFF")]
    wholes += [saved(colours, "PNG"), saved(colours, "WEBP", lossless=True), saved(indexed, "PNG", bits=2)]
    for array in (ids, ids.astype(np.int32), ids > 0, ids[..., None]):
        file = io.BytesIO()
        np.save(file, array)
        wholes.append(file.getvalue())
    file = io.BytesIO()
    tifffile.imwrite(file, ids.astype(np.uint32), compression="zlib")
    wholes.append(file.getvalue())

    def read() -> None:
        found = read_mask(path, CLASSES)
        assert found.dtype == torch.uint8
        assert found.numpy().max() in (0, 1, 2, IGNORE)

    return Reader(path, wholes, (changed, changed_png), read)


def classes(folder: Path) -> Reader:
    """classes.json."""
    path = folder / "classes.json"
    texts = [
        {"classes": ["sky", "road", "car"], "palette": [[0, 0, 255], [9, 9, 9], [255, 0, 0]], "ignore": 255},
        {"classes": ["sky", "road"], "values": {"7": "road", "0": 0, "9": None}, "ignore_color": [0, 0, 0]},
        {"classes": ["cat", "dog", "car"], "categories": ["animal", "animal", "thing"]},
    ]

    def read() -> None:
        found = Classes.from_file(path)
        assert Classes.from_dict(found.to_dict(), "itself") == found
        assert found.lookup(65536).max() <= IGNORE

    return Reader(path, [json.dumps(text).encode() for text in texts], (changed_json, changed_text, changed), read)


def configurations(folder: Path) -> Reader:
    """YAML of settings."""
    path = folder / "settings.yaml"
    recipes = [
        Path(asymseg.__file__).with_name("recipes") / f"{name}.yaml" for name in ("sample", "camvid-mobilenetv2")
    ]
    laughs = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    wholes = [recipe.read_bytes() for recipe in recipes] + [f"a: &a [x, x]\n{laughs}data: {{mean: *i}}\n".encode()]
    wholes.append(b"data: {mean: [0.5, 0.5, 0.5], std: [1, 1, 1]}\ntrain: {class_weights: [1.0, 2.0], ema: 0.9}\n")

    def read() -> None:
        config = make_config(read_config(path), where=str(path))
        assert make_config(config.model_dump()) == config

    return Reader(path, wholes, (changed_text, changed_text, changed), read)


def _network(backbone: str = "resnet10t", **more: Any) -> ANNNet:
    torch.manual_seed(0)
    return ANNNet(len(CLASSES), backbone, pretrained=False, **(TINY | more)).eval()


def _model(folder: Path) -> Path:
    if not folder.is_dir():
        save_model(folder, _network(), INFO)
    return folder


def _predicted(source: Path) -> None:
    result = asymseg.load(source, device="cpu")(np.zeros((20, 30, 3), dtype=np.uint8))
    assert result.mask.shape == (20, 30)
    assert result.mask.max() < len(result.classes)


def model_descriptions(folder: Path) -> Reader:
    """config.json of a model folder."""
    path = _model(folder / "model") / "config.json"
    changes = (changed_json, changed_json, changed_text, changed)
    return Reader(path, [path.read_bytes()], changes, lambda: _predicted(path.parent))


def model_weights(folder: Path) -> Reader:
    """model.safetensors of a model folder."""
    path = _model(folder / "model") / "model.safetensors"
    return Reader(path, [path.read_bytes()], (changed, _changed_head), lambda: _predicted(path.parent))


def _changed_head(choose: Random, files: list[bytes]) -> bytes:
    """A safetensors file whose JSON is changed, and its length with it."""
    whole = choose.choice(files)
    length = int.from_bytes(whole[:8], "little")
    head = changed_json(choose, [whole[8 : 8 + length]])
    return len(head).to_bytes(8, "little") + head + whole[8 + length :]


def checkpoints(folder: Path) -> Reader:
    """Other programs' checkpoints: torch's, now and before 1.6, PaddlePaddle's, safetensors."""
    from safetensors.torch import save

    path = folder / "checkpoint.pth"
    sizes = {"stages": (-2, -1), "output_stride": 8, "aux_channels": 8}
    whole = to_mmseg(_network("resnet50+width=4", **sizes), INFO)
    arrays = {name: tensor.numpy() for name, tensor in whole["state_dict"].items()}
    wholes = [_torch_file(whole), _torch_file(whole, _use_new_zipfile_serialization=False), save(whole["state_dict"])]
    wholes += [pickle.dumps(arrays, protocol) for protocol in (2, 4)]
    return Reader(path, wholes, (changed, _changed_deep), lambda: read_foreign(path))


def _torch_file(content: Any, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _changed_deep(choose: Random, files: list[bytes]) -> bytes:
    """A file with a few bytes changed anywhere within its first half, where names and numbers of a pickle stand."""
    data = bytearray(choose.choice(files))
    for _ in range(choose.randint(1, 3)):
        data[choose.randrange(len(data) // 2)] = choose.randrange(256)
    return bytes(data)


def states(folder: Path) -> Reader:
    """training.pt of a run, with its hashes taken away as a stranger could."""
    network = _network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    run = Run(network, network, optimizer, None, Accelerator(cpu=True), Progress())
    save_last(folder / "last", run, INFO)
    (folder / "last" / "SHA256SUMS").unlink()
    path = folder / "last" / "training.pt"
    return Reader(path, [path.read_bytes()], (changed, _changed_deep), lambda: load_last(folder / "last", run))


def onnx_files(folder: Path) -> Reader:
    """What `asymseg export` writes."""
    path = folder / "model.onnx"
    asymseg.export(_model(folder / "whole model"), path, progress=lambda line: None)
    return Reader(path, [path.read_bytes()], (changed, _changed_deep), lambda: _predicted(path))


def _pairs_read(place: str) -> None:
    dataset = open_dataset(place, holdout=0.5)
    for pairs in dataset.splits.values():
        for pair in pairs:
            image, mask = read_pair(pair, dataset.classes)
            assert image.shape[1:] == mask.shape


def _picture(path: Path, size: tuple[int, int] = (8, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def coco(folder: Path) -> Reader:
    """COCO's annotations."""
    path = folder / "annotations.json"
    for name in "ab":
        _picture(folder / f"{name}.png")
    content = {
        "images": [{"id": n, "file_name": f"{name}.png", "height": 8, "width": 10} for n, name in enumerate("ab")],
        "categories": [{"id": 90, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 17, "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6], [9, 0, 9, 7]]},
            {"image_id": 1, "category_id": 90, "segmentation": {"size": [8, 10], "counts": [0, 8, 72]}},
            {"image_id": 0, "category_id": 90, "segmentation": {"size": [8, 10], "counts": "08X2"}},
        ],
    }
    changes = (changed_json, changed_json, changed_text, changed)
    return Reader(path, [json.dumps(content).encode()], changes, lambda: _pairs_read(f"coco:{path}"))


def labelme(folder: Path) -> Reader:
    """LabelMe's files of shapes."""
    import base64

    path = folder / "a.json"
    _picture(folder / "a.png")
    small = base64.b64encode(saved(Image.new("1", (2, 2), 1), "PNG")).decode()
    points = {"polygon": [[1, 1], [5, 1], [5, 5]], "rectangle": [[8, 6], [4, 3]], "circle": [[4, 4], [6, 4]]}
    points |= {"line": [[0, 0], [5, 5]], "point": [[3, 3]], "linestrip": [[0, 0], [3, 3], [5, 1]]}
    shapes: list[dict[str, Any]] = [
        {"label": kind, "points": corners, "shape_type": kind} for kind, corners in points.items()
    ]
    shapes.append({"label": "dog", "points": [[8, 0], [9, 1]], "shape_type": "mask", "mask": small})
    content = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 8, "imageWidth": 10}
    changes = (changed_json, changed_json, changed_text, changed)
    return Reader(path, [json.dumps(content).encode()], changes, lambda: _pairs_read(f"labelme:{folder}"))


CVAT = b"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>road</name><color>#ff0010</color></label><label><name>car</name><color>#0000ff</color></label>
</labels></task></meta>
<image id="0" name="a.png" width="10" height="8">
<box label="car" xtl="4" ytl="4" xbr="9" ybr="8" rotation="30" z_order="1"/>
<polygon label="road" points="2,2;6,2;6,6;2,6" z_order="0"/>
<mask label="road" rle="1,2,1" left="0" top="6" width="2" height="2" z_order="0"/></image>
<image id="1" name="b.png" width="10" height="8" subset="Validation">
<ellipse label="car" cx="5" cy="4" rx="3" ry="2"/></image>
</annotations>
"""


def cvat(folder: Path) -> Reader:
    """CVAT's XML."""
    path = folder / "annotations.xml"
    for name in "ab":
        _picture(folder / "images" / f"{name}.png")
    return Reader(path, [CVAT], (changed_text, changed, _other_numbers), lambda: _pairs_read(f"cvat:{path}"))


def _other_numbers(choose: Random, texts: list[bytes]) -> bytes:
    """One of the texts, one or two of its attributes another value."""
    parts = choose.choice(texts).decode().split('"')
    strange = ("", "-1", "0", "1e9", "99999999", "nan", "inf", "1e400", "x", "4,", ",;,", "٣", "-99999999999", "1.5")
    for _ in range(choose.randint(1, 2)):
        parts[choose.randrange(len(parts) // 2) * 2 + 1] = choose.choice(strange)
    return '"'.join(parts).encode()


def _voc(folder: Path) -> Path:
    for name in "ab":
        _picture(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        Image.new("L", (10, 8), 3).save(folder / "SegmentationClass" / f"{name}.png")
        lists = folder / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{'train' if name == 'a' else 'val'}.txt").write_text(f"{name}\n")
    return folder


def split_lists(folder: Path) -> Reader:
    """Lists of the images of a split, as VOC has them."""
    path = _voc(folder / "VOC2012") / "ImageSets" / "Segmentation" / "train.txt"
    wholes = [b"a\n", b"a 1\nb -1\n", b"a\r\nb\r\n", "\ufeffa\n".encode()]
    return Reader(path, wholes, (changed_text, changed), lambda: _pairs_read(f"voc2012:{folder}"))


def details(folder: Path) -> Reader:
    """PASCAL Context's trainval_merged.json."""
    path = folder / "VOC2010" / "trainval_merged.json"
    for name in "ab":
        _picture(folder / "VOC2010" / "JPEGImages" / f"{name}.jpg")
    sides = {"height": 8, "width": 10}
    entries = [
        {"image_id": n, "file_name": f"{name}.jpg", "phase": phase, **sides}
        for n, (name, phase) in enumerate((("a", "train"), ("b", "val")))
    ]
    regions = [{"image_id": 0, "category_id": 2, "segmentation": {"size": [8, 10], "counts": "08X2"}}]
    content = json.dumps({"images": entries, "annos_segmentation": regions}).encode()
    changes = (changed_json, changed_json, changed_text, changed)
    return Reader(path, [content], changes, lambda: _pairs_read(f"pascal-context:{folder}"))


def mat_files(folder: Path) -> Reader:
    """MATLAB's label maps."""
    from scipy.io import savemat

    from asymseg.data.catalog.mat_files import MatLabels
    from asymseg.data.pairing import Pair

    path, image = folder / "a.mat", folder / "a.png"
    _picture(image)
    wholes = []
    for packed in (False, True):
        file = io.BytesIO()
        ids = np.zeros((8, 10), dtype=np.uint8)
        savemat(file, {"S": ids.astype(float), "GTcls": {"Segmentation": ids}}, do_compression=packed)
        wholes.append(file.getvalue())
    kinds = (MatLabels("S"), MatLabels("GTcls", "Segmentation"))
    pairs = [Pair("a", image, path, labels=labels) for labels in kinds]

    def read() -> None:
        for pair in pairs:
            read_pair(pair, CLASSES)

    return Reader(path, wholes, (changed,), read)


def rasters(folder: Path) -> Reader:
    """GeoTIFFs, tiled and in strips, with a palette, no data, overviews."""
    import rasterio

    wholes = []
    common = {"driver": "GTiff", "width": 48, "height": 32, "dtype": "uint8", "crs": "EPSG:32632"}
    common["transform"] = rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)
    kinds: list[dict[str, Any]] = [
        {"count": 3, "tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
        {"count": 1, "nodata": 0},
        {"count": 3, "dtype": "float32", "compress": "lzw"},
    ]
    for number, kind in enumerate(kinds):
        path = folder / f"{number}.tif"
        with rasterio.open(path, "w", **(common | kind)) as file:
            shape = (kind["count"], 32, 48)
            file.write((np.random.default_rng(0).random(shape) * 200).astype(file.dtypes[0]))
        wholes.append(path.read_bytes())
    path = folder / "raster.tif"

    def read() -> None:
        with Raster(path, INFO) as raster:
            height, width = (min(side, 64) for side in raster.size)
            raster.read_valid(slice(0, height), slice(0, width))

    return Reader(path, wholes, (changed,), read)


def records(folder: Path) -> Reader:
    """metrics.json of an evaluation, as `compare` takes it."""
    path = folder / "metrics.json"
    counts = {"classes": [0, 2], "correct": [5, 6], "labelled": [7, 8], "predicted": [6, 9]}
    content = {"split": "val", "classes": list(CLASSES.names), "per_image_counts": {"a": counts, "b": counts}}
    changes = (changed_json, changed_json, changed_text, changed)
    return Reader(path, [json.dumps(content).encode()], changes, lambda: read_record(folder))


def videos(folder: Path) -> Reader:
    """A short film."""
    import av

    from asymseg.prediction.video import predict_video

    path = folder / "film.mp4"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(4):
            picture = np.full((24, 32, 3), 60 * number, dtype=np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())
    predictor = asymseg.load(_model(folder / "model"), device="cpu")
    return Reader(path, [path.read_bytes()], (changed, _changed_deep), lambda: list(predict_video(predictor, path)))


def _rows_read(folder: Path) -> None:
    from asymseg.data.catalog import huggingface

    huggingface._tables.cache_clear()  # it opens a folder once in a process
    _pairs_read(f"hf:{folder}")


def _saved_rows(folder: Path) -> Path:
    """A data set as the library datasets saves it, in parts, with names for its classes."""
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = folder.with_name("cache")
    pictures = [Image.fromarray(np.full((8, 10, 3), 40 * number, dtype=np.uint8)) for number in range(2)]
    masks = [Image.fromarray(np.full((8, 10), number, dtype=np.uint8)) for number in range(2)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": masks}, features=features)
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(folder))
    (folder / "id2label.json").write_text('{"0": "sky", "1": "sea"}')
    return folder


def tables(folder: Path) -> Reader:
    """The rows of a data set of the library datasets."""
    rows = _saved_rows(folder / "rows")
    path = rows / "train" / "data-00000-of-00001.arrow"
    return Reader(path, [path.read_bytes()], (changed, _changed_deep), lambda: _rows_read(rows))


def parquet_tables(folder: Path) -> Reader:
    """The same as a file of a folder of Parquet."""
    import datasets

    rows = _saved_rows(folder / "rows")
    path = folder / "parquet" / "train.parquet"
    path.parent.mkdir()
    datasets.load_from_disk(str(rows))["train"].to_parquet(str(path))
    return Reader(path, [path.read_bytes()], (changed, _changed_deep), lambda: _rows_read(path.parent))


def _described_rows(name: str) -> Callable[[Path], Reader]:
    """One of the JSON files beside the rows."""

    def reader(folder: Path) -> Reader:
        rows = _saved_rows(folder / "rows")
        path = rows / name
        changes = (changed_json, changed_json, changed_text, changed)
        return Reader(path, [path.read_bytes()], changes, lambda: _rows_read(rows))

    return reader


def sums(folder: Path) -> Reader:
    """SHA256SUMS of a training state."""
    network = _network()
    run = Run(network, network, torch.optim.SGD(network.parameters(), lr=0.1), None, Accelerator(cpu=True), Progress())
    save_last(folder / "last", run, INFO)
    path = folder / "last" / "SHA256SUMS"
    return Reader(path, [path.read_bytes()], (changed_text, changed), lambda: load_last(folder / "last", run))


def _stopped_raster(name: str, context: Context) -> Callable[[Path], Reader]:
    """One of the files of a raster's prediction that was stopped after its first row of tiles."""

    def reader(folder: Path) -> Reader:
        import rasterio

        source, out, kept = folder / "raster.tif", folder / "classes.tif", folder / "kept"
        place = rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)
        common = {"driver": "GTiff", "width": 32, "height": 48, "dtype": "uint8", "crs": "EPSG:32632"}
        with rasterio.open(source, "w", count=3, transform=place, **common) as file:
            file.write(np.random.default_rng(0).integers(0, 256, (3, 48, 32), dtype=np.uint8))
        predictor = asymseg.load(_model(folder / "model"), device="cpu")
        settings: dict[str, Any] = {"tile": 32, "overlap": 8, "context": context}

        def stop(done: int, total: int) -> None:
            state = folder / ".classes.tif.unfinished" / "state.json"
            if state.is_file():
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            predict_raster(predictor, source, out, progress=stop, **settings)
        state = folder / ".classes.tif.unfinished"
        state.rename(kept)

        def read() -> None:
            content = (folder / "changed").read_bytes()
            shutil.rmtree(state, ignore_errors=True)
            shutil.copytree(kept, state)
            (state / name).write_bytes(content)
            out.unlink(missing_ok=True)
            predict_raster(predictor, source, out, **settings)
            assert out.is_file()

        changes = (changed_json, changed_text, changed) if name.endswith(".json") else (changed,)
        return Reader(folder / "changed", [(kept / name).read_bytes()], changes, read)

    return reader


def _manifest(name: str, more: bytes) -> Callable[[Path], Reader]:
    """One of the files by which `predict --resume` knows what is done."""

    def reader(folder: Path) -> Reader:
        for image in "abc":
            _picture(folder / "images" / f"{image}.png")
        plan, made_with = plan_files(folder / "images", folder / "out"), {"model": "12ab", "scales": [1.0, 1.5]}
        rest_of(plan, Wanted(), made_with)
        record(plan.out, [Done("a.png"), Done("b.png", "damaged: copy it again")])
        found = next((folder / "out" / ".predictions").glob(name))

        def read() -> None:
            names, done = rest_of(plan, Wanted(), made_with)
            assert len(names) + done == 3
            assert {"a.png", "b.png", "c.png"}.issuperset(names)

        wholes = [found.read_bytes(), *([more] if more else [])]
        lines = (_changed_line, changed_text, changed) if more else (changed_json, changed_text, changed)
        return Reader(found, wholes, lines, read)

    return reader


def _changed_line(choose: Random, files: list[bytes]) -> bytes:
    """JSON line by line, one of the lines changed."""
    lines = choose.choice(files).splitlines()
    number = choose.randrange(len(lines))
    lines[number] = changed_json(choose, [lines[number]])
    return b"\n".join(lines) + b"\n"


def image_lists(folder: Path) -> Reader:
    """A list of the images to predict."""
    path = folder / "list.txt"
    for image in "ab":
        _picture(folder / "images" / f"{image}.png")
    wholes = [b"images/a.png\nimages/b.png\n", f"{folder}/images/a.png\n./images/../images/b.png\n".encode()]

    def read() -> None:
        plan = plan_files(path, folder / "out")
        assert plan.names

    return Reader(path, wholes, (changed_text, changed), read)


def keys(folder: Path) -> Reader:
    """The keys of a server."""
    path = folder / "keys"
    wholes = [b"0123456789abcdef0123\n# a comment\n\n  fedcba98765432100123  \n"]
    return Reader(path, wholes, (changed_text, changed), lambda: read_keys(path))


READERS: dict[str, tuple[Callable[[Path], Reader], int]] = {
    "images": (images, 140),
    "masks": (masks, 120),
    "classes.json": (classes, 100),
    "settings.yaml": (configurations, 40),
    "config.json": (model_descriptions, 12),
    "model.safetensors": (model_weights, 12),
    "checkpoints": (checkpoints, 6),
    "training.pt": (states, 20),
    "onnx": (onnx_files, 12),
    "coco": (coco, 40),
    "labelme": (labelme, 40),
    "cvat": (cvat, 40),
    "split lists": (split_lists, 30),
    "pascal-context": (details, 30),
    "mat": (mat_files, 40),
    "rasters": (rasters, 30),
    "metrics.json": (records, 40),
    "videos": (videos, 6),
    "datasets rows": (tables, 20),
    "datasets parquet": (parquet_tables, 6),
    "datasets state.json": (_described_rows("train/state.json"), 12),
    "datasets dataset_info.json": (_described_rows("train/dataset_info.json"), 12),
    "datasets dataset_dict.json": (_described_rows("dataset_dict.json"), 12),
    "id2label.json": (_described_rows("id2label.json"), 12),
    "SHA256SUMS": (sums, 12),
    "raster state": (_stopped_raster("state.json", "tile"), 8),
    "raster sums": (_stopped_raster("sums-0-0.npy", "tile"), 8),
    "raster tokens": (_stopped_raster("tokens.safetensors", "image"), 8),
    "raster pixels": (_stopped_raster(PIXELS, "tile"), 4),
    "run.json": (_manifest("run.json", b""), 40),
    "done": (_manifest("done/*.jsonl", b'{"image": "a.png"}\n{"image": "c.png"}\n'), 40),
    "image lists": (image_lists, 40),
    "keys": (keys, 20),
}
"""What makes each reader in a folder of its own, and its share of the inputs: less of what takes long."""
