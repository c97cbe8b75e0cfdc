"""From a request's body to the pixels of an image, in memory alone: nothing of it is ever written to the disk."""

import asyncio
import base64
import binascii
import json
import math
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from io import BytesIO

from numpy.lib import format as npy_format
from PIL import Image
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from asymseg.data.decoding import THE_IMAGE, TIFF_HEADS, kind_of, reading
from asymseg.data.pixels import Pixels, read_pixels
from asymseg.errors import DataError
from asymseg.serving import tiff
from asymseg.serving.refusals import Refusal
from asymseg.serving.room import Place

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""What an upload may be beside .npy, in Pillow's words; other readers are not let near it."""

_MOST_CHANNELS = 16
_MOST_SCANS = 100
"""Of a progressive JPEG. Ten are usual; each is a pass over all pixels, and fourteen bytes are enough for one."""
_START_OF_SCAN = b"\xff\xda"
_AS_JSON = 'send {"image": "..."} with the file in base64, and the header content-type: application/json'
_DRAINED = 4
"""So many bodies of the largest size are heard out before the answer that they are too large."""


class _InMemory(MultiPartParser):
    spool_max_size = 0
    """Never."""


async def read_body(request: Request, most: int, place: Place) -> bytes:
    """The body, in memory. Raises Refusal for one that is too large."""
    told = request.headers.get("content-length", "")
    too_large = told.isdecimal() and int(told) > most
    body, dropped = bytearray(), 0
    async for chunk in request.stream():
        if too_large or len(body) + len(chunk) > most:
            too_large = True
            dropped += len(body) + len(chunk)
            body.clear()
            if dropped > _DRAINED * most:
                break
        else:
            place.take_bytes(len(chunk))
            body += chunk
    if too_large:  # said when the client has sent all, and listens; one that sends on and on is cut off
        raise Refusal(
            413, "too_large", f"the body has more than {most} bytes, which are the limit; send a smaller image"
        )
    return bytes(body)


def image_bytes(headers: Headers, body: bytes) -> bytes:
    """The file that a body carries: as a form's field `image`, as base64 in JSON, or as it is. Raises Refusal."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return asyncio.run(_from_form(headers, body))  # the parser is for event loops; this is a thread with none
    if kind == "application/json":
        return _from_json(body)
    if body.startswith(b"{"):  # no image does
        raise Refusal(400, "bad_body", f"the body looks like JSON; {_AS_JSON}")
    if body.startswith(b"image="):
        raise Refusal(400, "bad_body", "the form holds no file; send it as in curl -F image=@photo.jpg")
    return body


def count_pixels(data: bytes, most: int) -> int:
    """How many pixels the image has, from its head alone. Raises Refusal where they are too many, or none is told."""
    if not data:
        raise Refusal(400, "bad_image", "there are no bytes of an image; send the file")
    with _refusing():
        try:
            pixels, numbers = _told(data)
        except Image.DecompressionBombError:
            pixels = numbers = sys.maxsize
    if pixels > most or numbers > _MOST_CHANNELS * most:
        raise Refusal(413, "too_large", f"the image has more than {most} pixels; make it smaller")
    return pixels


def decode(data: bytes, channels: int) -> Pixels:
    """The pixels that `read_pixels` reads from a file of these bytes. Raises Refusal."""
    with _refusing():
        if data.startswith(TIFF_HEADS):
            tiff.check_content(data)
        return read_pixels(BytesIO(data), channels, FORMATS)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        with reading(THE_IMAGE):
            yield
    except DataError as error:
        raise Refusal(400, "bad_image", str(error)) from None
    except MemoryError:
        raise Refusal(413, "too_large", "there is no memory for the image; send a smaller one") from None


def _told(data: bytes) -> tuple[int, int]:
    """Pixels, and numbers of all channels, that the head of a file promises. Nothing is decoded."""
    if data.startswith(TIFF_HEADS):
        return tiff.promised(data)
    if kind_of(BytesIO(data)) == "npy":
        shape, numbers = _npy_shape(data)
        return shape[0] * shape[1], numbers
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if image.format in ("JPEG", "MPO") and data.count(_START_OF_SCAN) > _MOST_SCANS:
            raise DataError(f"{THE_IMAGE}: a JPEG of more than {_MOST_SCANS} scans; save it anew")
        return image.width * image.height, image.width * image.height * len(image.getbands())


def _npy_shape(data: bytes) -> tuple[tuple[int, ...], int]:
    """Shape, and how many numbers there are, of a .npy file that holds as many as it says."""
    file = BytesIO(data)
    version = npy_format.read_magic(file)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, kind = read_header(file)
    numbers = math.prod(shape)
    if kind.hasobject or kind.names is not None or len(shape) not in (2, 3) or min(shape) < 0:
        raise DataError(f"{THE_IMAGE}: an array of {kind} of shape {shape}; save numbers as H W C or H W")
    if numbers * kind.itemsize != len(data) - file.tell():
        raise DataError(f"{THE_IMAGE}: an array of shape {shape} in a file of another length; save it again")
    return shape, numbers


async def _from_form(headers: Headers, body: bytes) -> bytes:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(headers, once(), max_files=1, max_fields=8, max_part_size=len(body)).parse()
    except MultiPartException as error:
        raise Refusal(400, "bad_body", f"the form cannot be read ({error.message}); send one file as `image`") from None
    try:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise Refusal(400, "bad_body", "the form has no file `image`; add one, as in curl -F image=@photo.jpg")
        return await image.read()
    finally:
        await form.close()


def _from_json(body: bytes) -> bytes:
    if body.count(b'"') > 4 or body.count(b"{") > 1 or b"[" in body:  # parsed, it might be twenty times as large
        raise Refusal(400, "bad_body", f"the JSON is not as expected; {_AS_JSON}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "bad_body", f"the body is no JSON; {_AS_JSON}") from None
    if not isinstance(content, dict) or list(content) != ["image"] or not isinstance(content["image"], str):
        raise Refusal(400, "bad_body", f"the JSON is not as expected; {_AS_JSON}")
    try:
        return base64.b64decode(content["image"], validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "bad_body", f"the image is no base64; {_AS_JSON}") from None
