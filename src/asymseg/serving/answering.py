"""What is sent back of a result: whether that can be, and its form as JSON; pictures are for `prediction.encoding`."""

import base64
import json
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from asymseg.classes import Classes
from asymseg.errors import ConfigError
from asymseg.prediction.attention import Attention
from asymseg.prediction.raster.polygons import find_regions
from asymseg.prediction.result import Result
from asymseg.serving.loading import Loaded
from asymseg.serving.refusals import Refusal
from asymseg.serving.schemas import Wanted

KINDS = {
    "json": "application/json",
    "mask": "image/png",
    "overlay": "image/jpeg",
    "probabilities": "application/octet-stream",
}

_MOST_POLYGONS = 100_000
_MOST_PROBABILITIES = 2**28
_BAND_PIXELS = 2_000_000
_BLOCKS = {"fusion": "afnb", "context": "apnb"}


def check_wanted(wanted: Wanted, classes: Classes, pixels: int) -> None:
    """Raises Refusal for what no image, or none of this size, can be answered with."""
    if wanted.polygons and any(find_spec(package) is None for package in ("rasterio", "shapely")):
        raise Refusal(
            422, "no_polygons", 'polygons need packages that this server lacks: pip install "asymseg[raster]"'
        )
    if wanted.output != "json" and (wanted.polygons or wanted.keep):
        raise Refusal(422, "bad_parameter", "polygons and keep are for output=json; leave them out")
    if wanted.output == "probabilities" and len(classes) * pixels > _MOST_PROBABILITIES:
        most = _MOST_PROBABILITIES // len(classes)
        raise Refusal(
            413, "too_large", f"the probabilities of {len(classes)} classes are given for at most {most} pixels"
        )


def as_json(result: Result, model: Loaded, wanted: Wanted, name: str | None, seconds: float) -> bytes:
    """A `Prediction`."""
    mask = result.mask
    counts = np.bincount(mask.ravel(), minlength=len(result.classes))
    classes = [
        {**each, "pixels": int(count), "share": int(count) / mask.size}
        for each, count in zip(list_classes(result.classes), counts, strict=False)
    ]
    content = {
        "id": name,
        "model": model.name,
        "version": model.version,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "seconds": seconds,
        "classes": classes,
        "ids_png": base64.b64encode(_grey_png(mask)).decode(),
        "polygons": _polygons(mask, result.classes) if wanted.polygons else None,
    }
    return json.dumps(content).encode()


def list_classes(classes: Classes) -> list[dict[str, Any]]:
    """Id, name and colour of each."""
    return [
        {"id": number, "name": name, "colour": f"#{red:02x}{green:02x}{blue:02x}"}
        for number, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.palette, strict=True))
    ]


def of_pixel(result: Result, row: int, column: int) -> dict[str, Any]:
    """A `PixelAnswer`. The first question after attention runs the network once more. Raises Refusal."""
    height, width = result.mask.shape
    if row >= height or column >= width:
        raise Refusal(422, "bad_parameter", f"row {row}, column {column}: the image has {height} rows, {width} columns")
    shares = result.probabilities_at(row, column)
    best = np.argsort(-shares, kind="stable").tolist()
    try:
        attention = _regions(result.attention(row, column))
    except ConfigError:  # an exported network, or one that sees the image in parts
        attention = None
    names = result.classes.names
    return {
        "row": row,
        "column": column,
        "class": int(result.mask[row, column]),
        "probabilities": [{"id": n, "name": names[n], "probability": float(shares[n])} for n in best],
        "attention": attention,
    }


def _regions(attention: Attention) -> list[dict[str, Any]]:
    return [
        {
            "block": _BLOCKS[block.name],
            "regions": [
                {"top": top, "bottom": bottom, "left": left, "right": right, "weight": weight}
                for (top, bottom, left, right), weight in zip(block.boxes.tolist(), block.weights.tolist(), strict=True)
            ],
        }
        for block in attention.blocks
    ]


def _grey_png(mask: UInt8[np.ndarray, "h w"]) -> bytes:
    file = BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return file.getvalue()


def _polygons(mask: UInt8[np.ndarray, "h w"], classes: Classes) -> dict[str, Any]:
    features = list[dict[str, Any]]()
    for region in find_regions(_bands(mask)):
        if len(features) == _MOST_POLYGONS:
            raise Refusal(
                422, "too_many_polygons", f"the mask has more than {_MOST_POLYGONS} regions; ask for output=mask"
            )
        features.append(
            {
                "type": "Feature",
                "properties": {
                    "class_id": region.class_id,
                    "class_name": classes.names[region.class_id],
                    "pixels": region.pixels,
                },
                "geometry": region.shape.__geo_interface__,
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _bands(mask: UInt8[np.ndarray, "h w"]) -> Iterator[UInt8[np.ndarray, "_ w"]]:
    step = max(1, _BAND_PIXELS // mask.shape[1])
    for first in range(0, mask.shape[0], step):
        yield mask[first : first + step]
