"""Which files are rasters rather than pictures. Needs no torch."""

from pathlib import Path

import tifffile

PICTURE_PIXELS = 64_000_000
"""A TIFF without a georeference and of no more pixels than this is taken for a picture, and read at once."""

_RASTERS = (".vrt", ".jp2", ".img")
_TIFFS = (".tif", ".tiff")


def is_raster(source: Path, out: Path) -> bool:
    """Whether `source` is predicted as a raster: window by window, its georeference kept.

    A file is where the result is asked for as a .tif. It is too, unless `out` is a .png, where it is a VRT, a JPEG 2000
    or an Imagine file, or a TIFF that is georeferenced or has more than `PICTURE_PIXELS` pixels.
    """
    if not source.is_file() or out.suffix.lower() == ".png":
        return False
    if out.suffix.lower() in _TIFFS or source.suffix.lower() in _RASTERS:
        return True
    if source.suffix.lower() not in _TIFFS:
        return False
    try:
        with tifffile.TiffFile(source) as file:
            page = file.pages.first
            return bool(page.is_geotiff) or page.imagelength * page.imagewidth > PICTURE_PIXELS
    except Exception:  # a damaged file: whoever reads it says so
        return False
