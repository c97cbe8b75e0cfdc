"""TIFF files that came over the network: what their heads promise, and that their content holds no more than that."""

import math
import struct
import zlib
from io import BytesIO
from itertools import islice

import numpy as np
import tifffile

from asymseg.data.decoding import THE_IMAGE, kind_of, open_tiff
from asymseg.errors import DataError

_MOST_PAGES = 256
_DEFLATE = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
_AT_ONCE = 2**20


def promised(data: bytes) -> tuple[int, int]:
    """Pixels, and numbers of all channels and planes, of the image or of one of its tiles, where that is larger.

    A decoder makes room for a whole tile, however little of it belongs to the image. Raises DataError.
    """
    _check_pages(data)
    planes = kind_of(BytesIO(data)) == "tiff"
    with open_tiff(BytesIO(data)) as opened:
        page = opened.pages.first
        pixels = max(page.imagelength * page.imagewidth, page.tilelength * page.tilewidth)
        numbers = max(pixels * page.samplesperpixel, math.prod(page.chunks))
        return pixels, max(numbers, opened.series[0].size) if planes else numbers


def check_content(data: bytes) -> None:
    """Raises DataError where strips or tiles would unpack to more than the head promises.

    That is for what tifffile reads, which unpacks each to its end; Pillow stops where a strip or tile is full.
    """
    if kind_of(BytesIO(data)) != "tiff":
        return
    with open_tiff(BytesIO(data)) as opened:
        for page in opened.series[0].pages:
            if page is not None:
                _check_page(data, page.aspage())


def _check_page(data: bytes, page: tifffile.TiffPage) -> None:
    if page.compression == tifffile.COMPRESSION.NONE:
        return
    if page.compression not in _DEFLATE:
        raise DataError(f"{THE_IMAGE}: a TIFF file packed otherwise than by DEFLATE; save it so, or unpacked")
    most = math.prod(page.chunks) * (page.dtype or np.dtype(np.uint8)).itemsize
    parts = zip(page.dataoffsets, page.databytecounts, strict=True)
    for first, count in islice(parts, math.prod(page.chunked)):
        unpacker, packed, size = zlib.decompressobj(), data[first : first + count], 0
        while packed and not unpacker.eof:
            size += len(unpacker.decompress(packed, _AT_ONCE))
            packed = unpacker.unconsumed_tail
            if size > most:
                raise DataError(f"{THE_IMAGE}: a TIFF file that unpacks to more than its head promises; save it again")


def _check_pages(data: bytes) -> None:
    """Raises DataError for a TIFF file of very many pages, or of pages that go round in a circle."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count, entry, pointer, first = ("Q", 20, "Q", 8) if big else ("H", 12, "I", 4)
    (place,) = struct.unpack_from(order + pointer, data, first)
    for _ in range(_MOST_PAGES + 1):
        if place == 0:
            return
        (entries,) = struct.unpack_from(order + count, data, place)
        (place,) = struct.unpack_from(order + pointer, data, place + struct.calcsize(order + count) + entries * entry)
    raise DataError(f"{THE_IMAGE}: a TIFF file of more than {_MOST_PAGES} pages; save one image in a file")
