"""Predict a raster of any size: tiles that overlap and blend, in memory that does not grow with the raster."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from asymseg.classes import Classes
from asymseg.errors import AsymsegError, DataError
from asymseg.prediction.onnx.on_torch import on_torch
from asymseg.prediction.onnx.runtime import OnnxPredictor
from asymseg.prediction.predict import Predictor
from asymseg.prediction.raster.pixels import CLASSES, SHARES
from asymseg.prediction.raster.polygons import check_polygons, write_polygons
from asymseg.prediction.raster.reading import Raster
from asymseg.prediction.raster.state import Unfinished, model_key, unfinished
from asymseg.prediction.raster.work import blended, streamed
from asymseg.prediction.raster.writing import (
    describe_classes,
    describe_pixels,
    describe_probabilities,
    georeference,
    write_cog,
)

Context = Literal["tile", "image"]


@dataclass(frozen=True)
class RasterOutcome:
    """What was written, and how."""

    path: Path
    size: tuple[int, int]
    tiles: int
    resumed: int
    """Tiles that an earlier, interrupted run had done."""
    probabilities: Path | None = None
    regions: int | None = None
    """Polygons that were written, where they were asked for."""


def predict_raster(
    predictor: Predictor | OnnxPredictor,
    source: str | Path,
    out: str | Path,
    *,
    tile: int = 1024,
    overlap: int | None = None,
    context: Context = "tile",
    bands: Sequence[int] | None = None,
    probabilities: bool = False,
    polygons: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _line: None,
) -> RasterOutcome:
    """Write the classes of a raster as a cloud-optimised GeoTIFF: palette, class names, georeference, 255 for no data.

    With the context "tile" the network sees tiles of `tile` x `tile` pixels. Where they overlap (by 128 pixels or half
    a tile, if not said otherwise) their probabilities are averaged, as the mode "slide" has it with tapered windows;
    within a tile the predictor sees as it always does. With the context "image" each tile is predicted with that of the
    whole image, for which the raster is read up to three times; `overlap` is then what is read around a tile, by
    default all that the backbone looks at (`asymseg.prediction.streaming`).

    Memory is that of a tile. The pixels that are done lie on the disk, one byte each, in a hidden folder beside `out`.

    A run that was killed goes on by itself at the row of tiles where it was, and gives the same bytes; with another
    model, input or setting it starts anew. `say` is told of both. With `probabilities` there is also
    NAME_probabilities.tif: a band of bytes for each class, with their scale. `polygons`, a name in .gpkg or .geojson,
    is where the regions of one class go.

    Raises DataError for a raster that cannot be read or does not fit, AsymsegError where rasterio is missing, the disk
    is full or another run is writing `out`.
    """
    predictor, source, out = on_torch(predictor), Path(source), Path(out)
    polygons = None if polygons is None else Path(polygons)
    if polygons is not None:
        check_polygons(polygons)
    with Raster(source, predictor.info, bands) as raster, raster.cached(tile):
        shares = out.with_name(f"{out.stem}_probabilities.tif") if probabilities else None
        _check_out(out, shares, polygons, raster)
        if context == "image":
            work = streamed(predictor, raster, tile, overlap)
        else:
            work = blended(predictor, raster, tile, min(128, tile // 2) if overlap is None else overlap)
        settings = {
            "model": model_key(predictor.network, predictor.info),
            "input": [str(source.resolve()), *_fingerprint(raster)],
            "setting": [context, tile, overlap, raster.bands, probabilities],
            "version": version("asymseg"),
            "arithmetic": [
                torch.__version__,
                str(predictor.device),
                predictor.coarse.precision,
                predictor.coarse.compiling,
            ],
        }
        with unfinished(out, settings, work.rows) as state:
            _check_room(state, raster, len(predictor.info.classes) if probabilities else 0)
            resumed = state.rows * work.across
            if state.started_anew:
                say(f"starting anew: {state.started_anew}")
            elif state.rows:
                say(f"going on at tile {resumed} of {work.rows * work.across}, where a run was stopped")
            work.run(state, probabilities, progress)
            if shares is not None:
                say("writing the probabilities")
                described = describe_pixels(state.path(SHARES), raster.size, len(predictor.info.classes))
                describe_probabilities(described, predictor.info.classes)
                _finish(described, raster, state.path("probabilities.tif"), shares, "AVERAGE")
            described = describe_pixels(state.path(CLASSES), raster.size, 1)
            describe_classes(described, predictor.info.classes)
            georeference(described, raster.dataset)
            regions = None
            if polygons is not None:
                say("writing the polygons")
                regions = _write_polygons(described, polygons, predictor.info.classes, state)
            say("writing the GeoTIFF")
            _finish(described, raster, state.path("classes.tif"), out, "MODE")
    return RasterOutcome(out, raster.size, work.rows * work.across, resumed, shares, regions)


def _finish(described: Path, raster: Raster, temporary: Path, out: Path, overviews: str) -> None:
    georeference(described, raster.dataset)
    write_cog(described, temporary, overviews)
    os.replace(temporary, out)


def _write_polygons(described: Path, polygons: Path, classes: Classes, state: Unfinished) -> int:
    temporary = state.path(f"polygons{polygons.suffix.lower()}")
    temporary.unlink(missing_ok=True)  # of an earlier run
    regions = write_polygons(described, temporary, classes)
    polygons.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(temporary, polygons)
    return regions


def _fingerprint(raster: Raster) -> list[object]:
    """What tells a changed raster from the same one: its size, and those of its files with their times."""
    facts: list[object] = [*raster.size]
    for name in sorted(raster.dataset.files):
        if Path(name).is_file():
            stat = Path(name).stat()
            facts += [name, stat.st_size, stat.st_mtime_ns]
    return facts


def _check_out(out: Path, shares: Path | None, polygons: Path | None, raster: Raster) -> None:
    sources = {Path(name).resolve() for name in (raster.path, *raster.dataset.files)}
    for path in (out, shares, polygons):
        if path is not None and path.resolve() in sources:
            raise DataError(f"{path}: is the raster itself, or a part of it; choose another name for the result")
        if path is not None and path.is_dir():
            raise DataError(f"{path}: a folder; give the result the name of a file")


def _check_room(state: Unfinished, raster: Raster, shares: int) -> None:
    """Refuse to start what a full disk would stop: a byte for each pixel and class, and as many for the result."""
    there = sum(state.path(name).stat().st_size for name in (CLASSES, SHARES) if state.path(name).exists())
    needed = 2 * raster.size[0] * raster.size[1] * (1 + shares) - there
    free = shutil.disk_usage(state.folder).free
    if needed > free:
        raise AsymsegError(
            f"{state.folder.parent}: {free / 2**30:.1f} GiB free, up to {needed / 2**30:.1f} needed; make room"
        )
