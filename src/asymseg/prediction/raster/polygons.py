"""Regions of one class as polygons, made from a raster a band of rows at a time and joined across the bands."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from asymseg.classes import IGNORE, Classes
from asymseg.errors import AsymsegError, ConfigError

PIXELS_AT_ONCE = 16_000_000
"""Pixels of a band of rows."""

_AT_ONCE = 20_000
_WGS84 = "EPSG:4326"
_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON"}


@dataclass(frozen=True)
class Region:
    """Pixels of one class that hang together by their sides."""

    shape: Any
    """A shapely polygon, in pixels: x to the right, y down."""
    class_id: int

    @property
    def pixels(self) -> int:
        """How many there are."""
        return int(self.shape.area)  # corners lie on whole numbers, so it is exact


def write_polygons(classes_raster: Path, out: Path, classes: Classes) -> int:
    """Write the regions of a raster of class ids to a GeoPackage or GeoJSON file, and give their number.

    Each has `class_id`, `class_name`, `pixels` and, where the raster's coordinates are projected, `square_metres`.
    GeoJSON has longitude and latitude, as its standard wants, where the raster says where it lies.

    Memory is that of one band of rows and of the outlines of all regions that are not at their end yet. A region that
    spans the whole raster, as a background does, is one of these; its outline is what bounds memory.

    `out` is written in place, so it is a temporary name.
    """
    from rasterio import open as open_raster

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        with open_raster(classes_raster) as dataset:
            regions = find_regions(_bands_of(dataset))
            count = 0
            while (chunk := list(islice(regions, _AT_ONCE))) or count == 0:
                _write(chunk, out, classes, dataset, append=count > 0)
                count += len(chunk)
                if not chunk:
                    break
    return count


def find_regions(bands: Iterable[UInt8[np.ndarray, "_ w"]]) -> Iterator[Region]:
    """The regions of an image of class ids that comes in bands of rows, from above; each once, when it is at its end.

    `IGNORE` belongs to no region.
    """
    waiting: dict[int, tuple[int, list[Any]]] = {}  # class and pieces of each region that reaches the last row seen
    last = np.zeros(0, dtype=np.int64)  # which of these each pixel of that row belongs to, -1 for none
    top, fresh = 0, 0
    for band in bands:
        pieces = list(_pieces(band, top))
        tops, bottoms = (_owners(pieces, y, band.shape[1]) for y in (top, top + len(band)))
        crossing = np.unique(np.concatenate([tops, bottoms])).tolist()
        for number in set(range(len(pieces))).difference(crossing):
            yield Region(pieces[number][1], pieces[number][0])
        joined = _join(waiting, last, {number: pieces[number] for number in crossing if number >= 0}, tops)
        reaching = set(bottoms.tolist())
        waiting = {}
        names = np.full(len(pieces), -1, dtype=np.int64)
        for class_id, members, parts in joined:
            if reaching.isdisjoint(members):
                yield Region(_union(parts), class_id)
            else:
                names[members] = fresh
                waiting[fresh] = (class_id, parts)
                fresh += 1
        last = np.where(bottoms >= 0, names[bottoms], -1) if pieces else np.full(band.shape[1], -1)
        top += len(band)
    for class_id, parts in waiting.values():
        yield Region(_union(parts), class_id)


def _import_packages() -> None:
    """Raise an AsymsegError that says how to get what polygons need, where it is missing."""
    for name in ("rasterio", "pyogrio", "shapely"):
        if find_spec(name) is None:
            raise AsymsegError(f'polygons need {name}: pip install "asymseg[raster]"')


def check_polygons(out: Path) -> None:
    """Raise ConfigError for a name of another kind of file, AsymsegError where a package is missing."""
    _import_packages()
    if out.suffix.lower() not in _DRIVERS:
        raise ConfigError(f"polygons = {out}: not a name of polygons; give NAME.gpkg or NAME.geojson")


def _bands_of(dataset: Any) -> Iterator[UInt8[np.ndarray, "_ w"]]:
    step = max(1, PIXELS_AT_ONCE // dataset.width)
    for first in range(0, dataset.height, step):
        yield dataset.read(1, window=((first, min(first + step, dataset.height)), (0, dataset.width)))


def _pieces(band: UInt8[np.ndarray, "h w"], top: int) -> Iterator[tuple[int, Any]]:
    """Class and polygon of each part of a region in a band."""
    from affine import Affine
    from rasterio.features import shapes

    make_polygon = import_module("shapely").Polygon
    for outline, value in shapes(band, mask=band != IGNORE, connectivity=4, transform=Affine.translation(0, top)):
        shell, *holes = outline["coordinates"]
        yield int(value), make_polygon(shell, holes)


def _owners(pieces: list[tuple[int, Any]], y: int, width: int) -> Int[np.ndarray, " w"]:
    """Which piece has an edge along the line `y` at each column, -1 for none."""
    owners = np.full(width, -1, dtype=np.int64)
    bounds = import_module("shapely").bounds(np.array([shape for _, shape in pieces], dtype=object))  # n 4
    for number in np.flatnonzero((bounds.reshape(-1, 4)[:, [1, 3]] == y).any(axis=1)):
        corners = np.asarray(pieces[number][1].exterior.coords)
        along = (corners[:-1, 1] == y) & (corners[1:, 1] == y)
        for before, after in zip(corners[:-1][along, 0], corners[1:][along, 0], strict=True):
            owners[int(min(before, after)) : int(max(before, after))] = number
    return owners


def _join(
    waiting: dict[int, tuple[int, list[Any]]],
    last: Int[np.ndarray, " v"],
    pieces: dict[int, tuple[int, Any]],
    tops: Int[np.ndarray, " w"],
) -> Iterator[tuple[int, list[int], list[Any]]]:
    """Class, pieces' numbers and polygons of each region, once those of a band are joined to those that waited."""
    parent = {("region", name): ("region", name) for name in waiting}
    parent |= {("piece", number): ("piece", number) for number in pieces}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    if len(last):
        both = (last >= 0) & (tops >= 0)
        for name, number in np.unique(np.stack([last[both], tops[both]], axis=1), axis=0).tolist():
            if waiting[name][0] == pieces[number][0]:
                parent[root(("piece", number))] = root(("region", name))
    groups = defaultdict[tuple[str, int], list[tuple[str, int]]](list)
    for node in parent:
        groups[root(node)].append(node)
    for nodes in groups.values():
        members = [number for kind, number in nodes if kind == "piece"]
        parts = [part for kind, name in nodes if kind == "region" for part in waiting[name][1]]
        kind, first = nodes[0]
        class_id = waiting[first][0] if kind == "region" else pieces[first][0]
        yield class_id, members, parts + [pieces[number][1] for number in members]


def _union(parts: list[Any]) -> Any:
    """One polygon of parts that meet at the cuts; corners lie on whole numbers, so it is exact."""
    shapely = import_module("shapely")
    return parts[0] if len(parts) == 1 else shapely.simplify(shapely.union_all(parts, grid_size=1), 0)


def _write(regions: list[Region], out: Path, classes: Classes, dataset: Any, *, append: bool) -> None:
    import pyogrio.raw
    from rasterio.crs import CRS
    from rasterio.warp import transform

    shapely = import_module("shapely")
    place = dataset.transform
    matrix, corner = np.array([[place.a, place.b], [place.d, place.e]]), np.array([place.c, place.f])
    shapes = shapely.transform(
        np.array([region.shape for region in regions], dtype=object), lambda points: points @ matrix.T + corner
    )
    pixels = np.array([region.pixels for region in regions], dtype=np.int64)
    ids = np.array([region.class_id for region in regions], dtype=np.int32)
    fields = {
        "class_id": ids,
        "class_name": np.array([classes.names[number] for number in ids], dtype=object),
        "pixels": pixels,
    }
    reference, driver = dataset.crs, _DRIVERS[out.suffix.lower()]
    if reference is not None and reference.is_projected:
        fields["square_metres"] = pixels * (abs(np.linalg.det(matrix)) * reference.linear_units_factor[1] ** 2)
    if reference is not None and driver == "GeoJSON":  # GDAL would do this too, but not where it appends
        shapes = shapely.transform(shapes, lambda points: np.stack(transform(reference, _WGS84, *points.T), 1).round(7))
        reference = CRS.from_string(_WGS84)
    pyogrio.raw.write(
        out,
        shapely.to_wkb(shapes),
        list(fields.values()),
        list(fields),
        layer="classes",
        driver=driver,
        geometry_type="Polygon",
        crs=None if reference is None else reference.to_wkt(),
        append=append,
        layer_options={"RFC7946": "YES"} if driver == "GeoJSON" and reference is not None else None,
    )
