"""Polygons: those of the whole image at once, however it is cut into bands, and areas that add up to its pixels."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asymseg.classes import Classes
from asymseg.errors import ConfigError
from asymseg.prediction.raster import polygons
from asymseg.prediction.raster.polygons import check_polygons, find_regions, write_polygons

rasterio = pytest.importorskip("rasterio")
features = pytest.importorskip("rasterio.features")
pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CLASSES = Classes(("bog", "fen", "heath"))


def at_once(ids: np.ndarray) -> list[tuple[int, bytes]]:
    """Class and normal form of each region of the whole image, by GDAL alone."""
    shapes = features.shapes(ids, mask=ids != 255, connectivity=4)
    return sorted((int(value), shapely.to_wkb(shapely.normalize(shapely.geometry.shape(s)))) for s, value in shapes)


def in_bands(ids: np.ndarray, cuts: list[int]) -> list[tuple[int, bytes]]:
    bands = [band for band in np.split(ids, sorted(set(cuts))) if len(band)]
    regions = list(find_regions(bands))
    assert sum(region.pixels for region in regions) == (ids != 255).sum()
    return sorted((region.class_id, shapely.to_wkb(shapely.normalize(region.shape))) for region in regions)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    coarse=st.integers(1, 4),
    cuts=st.lists(st.integers(1, 19), max_size=6),
)
def test_cutting_changes_nothing(seed, height, width, coarse, cuts):
    rng = np.random.default_rng(seed)
    ids = rng.choice(np.array([0, 1, 255], dtype=np.uint8), (height, width)).repeat(coarse, 0).repeat(coarse, 1)
    assert in_bands(ids, [cut for cut in cuts if cut < len(ids)]) == at_once(ids)


def test_a_ring_that_closes_late_is_one_region():
    ids = np.zeros((9, 9), dtype=np.uint8)
    ids[1:8, 1:8] = 1
    ids[2:8, 2:7] = 0  # a horseshoe, open below
    ids[3:6, 4] = 2
    found = in_bands(ids, [1, 3, 5, 7])
    assert found == at_once(ids)
    assert sorted(class_id for class_id, _ in found) == [0, 1, 2]


def put(path, ids, **profile):
    settings = {"driver": "GTiff", "count": 1, "height": ids.shape[0], "width": ids.shape[1], "dtype": "uint8"}
    with rasterio.open(path, "w", **settings, **profile) as dataset:
        dataset.write(ids, 1)
    return path


@pytest.fixture
def ids() -> np.ndarray:
    coarse = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], dtype=np.uint8), (30, 40))
    return coarse.repeat(5, 0).repeat(5, 1)


def test_a_geopackage(ids, tmp_path, monkeypatch):
    monkeypatch.setattr(polygons, "PIXELS_AT_ONCE", 37 * ids.shape[1])
    monkeypatch.setattr(polygons, "_AT_ONCE", 50)
    place = rasterio.Affine(0.5, 0, 500_000, 0, -0.25, 5_000_000)
    raster = put(tmp_path / "ids.tif", ids, crs="EPSG:32633", transform=place)
    count = write_polygons(raster, tmp_path / "out.gpkg", CLASSES)
    facts, _, shapes, columns = pyogrio.raw.read(tmp_path / "out.gpkg")
    table = dict(zip(facts["fields"], columns, strict=True))
    assert facts["crs"] == "EPSG:32633"
    assert count == len(shapes) == len(at_once(ids)) > 100
    for number, name in enumerate(CLASSES.names):
        chosen = table["class_id"] == number
        assert set(table["class_name"][chosen]) == {name}
        assert table["pixels"][chosen].sum() == (ids == number).sum()
    areas = shapely.area(shapely.from_wkb(shapes))
    np.testing.assert_allclose(areas, table["square_metres"], rtol=1e-9)
    np.testing.assert_allclose(table["square_metres"], table["pixels"] * 0.125)
    drawn = features.rasterize(
        zip(shapely.from_wkb(shapes), table["class_id"].tolist(), strict=True), ids.shape, fill=255, transform=place
    )
    np.testing.assert_array_equal(drawn, ids)


def test_geojson_has_longitude_and_latitude(ids, tmp_path, monkeypatch):
    monkeypatch.setattr(polygons, "_AT_ONCE", 50)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    raster = put(tmp_path / "ids.tif", ids, crs="EPSG:32633", transform=place)
    count = write_polygons(raster, tmp_path / "out.geojson", CLASSES)
    content = json.loads((tmp_path / "out.geojson").read_text())
    assert "crs" not in content
    assert len(content["features"]) == count
    corners = np.concatenate([ring for each in content["features"] for ring in each["geometry"]["coordinates"]])
    assert count > 100  # more than are written at once
    assert np.all((abs(corners[:, 0] - 15) < 0.1) & (abs(corners[:, 1] - 45.1) < 0.1))
    shells = [shapely.linearrings(each["geometry"]["coordinates"][0]) for each in content["features"]]
    assert shapely.is_ccw(shells).all()


@pytest.mark.parametrize("name", ["out.gpkg", "out.geojson"])
def test_without_a_place_coordinates_are_pixels(ids, tmp_path, name):
    write_polygons(put(tmp_path / "ids.tif", ids), tmp_path / name, CLASSES)
    facts, _, shapes, columns = pyogrio.raw.read(tmp_path / name)
    table = dict(zip(facts["fields"], columns, strict=True))
    assert "square_metres" not in table
    np.testing.assert_allclose(shapely.area(shapely.from_wkb(shapes)), table["pixels"])


def test_nothing_but_no_data_gives_an_empty_file(tmp_path):
    raster = put(tmp_path / "ids.tif", np.full((20, 30), 255, dtype=np.uint8))
    assert write_polygons(raster, tmp_path / "out.gpkg", CLASSES) == 0
    assert len(pyogrio.raw.read(tmp_path / "out.gpkg")[2]) == 0


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="NAME.gpkg or NAME.geojson"):
        check_polygons(tmp_path / "out.shp")
