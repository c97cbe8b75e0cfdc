"""From plain files of pixels to cloud-optimised GeoTIFF, with the georeference of the raster they were made from."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from asymseg.classes import IGNORE, Classes
from asymseg.errors import AsymsegError
from asymseg.prediction.raster.pixels import PROBABILITY_STEPS
from asymseg.prediction.raster.reading import import_rasterio


def describe_pixels(path: Path, size: tuple[int, int], channels: int) -> Path:
    """Write a VRT beside a file of pixels (see `Unfinished.write`), through which GDAL can read it."""
    height, width = size
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    for number in range(channels):
        band = ElementTree.SubElement(
            root, "VRTRasterBand", dataType="Byte", band=str(number + 1), subClass="VRTRawRasterBand"
        )
        ElementTree.SubElement(band, "SourceFilename", relativetoVRT="1").text = path.name
        ElementTree.SubElement(band, "ImageOffset").text = str(number * width)
        ElementTree.SubElement(band, "PixelOffset").text = "1"
        ElementTree.SubElement(band, "LineOffset").text = str(channels * width)
    described = path.with_suffix(".vrt")
    ElementTree.ElementTree(root).write(described, encoding="utf-8")
    return described


def georeference(described: Path, source: Any) -> None:
    """Give a VRT the place on Earth of the open dataset `source`, and the value that means no data."""
    with _opened(described, "r+") as dataset:
        points, reference = source.gcps
        if points:
            dataset.gcps = (points, reference)
        else:
            if source.crs is not None:
                dataset.crs = source.crs
            if not source.transform.is_identity:
                dataset.transform = source.transform
        dataset.nodata = IGNORE
        dataset.update_tags(**{key: value for key, value in source.tags().items() if key == "AREA_OR_POINT"})
        rational = source.rpcs
        if rational is not None:
            dataset.rpcs = rational


def describe_classes(described: Path, classes: Classes) -> None:
    """Give a VRT of class ids the classes' colours, and their names as the tag `classes`, a JSON list."""
    with _opened(described, "r+") as dataset:
        colours = {number: (*colour, 255) for number, colour in enumerate(classes.palette)}
        dataset.write_colormap(1, colours | {IGNORE: (0, 0, 0, 0)})
        dataset.set_band_description(1, "class")
        dataset.update_tags(classes=json.dumps(classes.names, ensure_ascii=False))


def describe_probabilities(described: Path, classes: Classes) -> None:
    """Give a VRT of probabilities as bytes their scale, and each band its class's name."""
    with _opened(described, "r+") as dataset:
        dataset.scales = [1 / PROBABILITY_STEPS] * len(classes)
        for number, name in enumerate(classes.names, start=1):
            dataset.set_band_description(number, name)


def write_cog(described: Path, out: Path, overviews: str) -> None:
    """Copy what GDAL can read to a cloud-optimised GeoTIFF; `overviews` is how smaller copies are made.

    `out` is written in place, so it is a temporary name. Raises AsymsegError where GDAL cannot write it.
    """
    rasterio = import_rasterio()
    from rasterio.shutil import copy

    try:
        copy(
            described,
            out,
            driver="COG",
            compress="DEFLATE",
            blocksize=512,
            overview_resampling=overviews,
            bigtiff="IF_SAFER",
        )
        with out.open("rb") as file:
            os.fsync(file.fileno())
        with _opened(out, "r") as dataset:  # GDAL tells a full disk as late as this
            dataset.read(1, window=((dataset.height - 1, dataset.height), (0, dataset.width)))
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError, OSError) as error:
        reason = " ".join(str(error).split())
        raise AsymsegError(
            f"{out}: could not be written ({reason}); make room and give the same command again: all else is done"
        ) from None


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[Any]:
    rasterio = import_rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, mode) as dataset:
            yield dataset
