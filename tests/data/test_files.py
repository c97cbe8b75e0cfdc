"""Images and masks on disk, made by hand: each is read faithfully or refused in one line with the cure."""

import os
import signal
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.data import files
from asymseg.data.files import image_size, image_tensor, read_image, read_mask
from asymseg.data.pixels import write_mask
from asymseg.errors import DataError

TWO = Classes(("sky", "road"))
COLOURED = Classes(("sky", "road"), palette=((10, 20, 30), (200, 0, 0)), ignore_colour=(0, 0, 0))
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(pixels: np.ndarray, bits: int, colour: int, orientation: int = 1) -> bytes:
    """A PNG of any depth; Pillow writes no 16 bit RGB and no 2 bit grey."""
    height, width = pixels.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    else:
        per_bit = np.unpackbits(pixels[:, :, None].astype(np.uint8), axis=2)[:, :, 8 - bits :]
        rows = [np.packbits(row.ravel()).tobytes() for row in per_bit]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + (chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) if orientation > 1 else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def pixels_of(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def fault(call, *arguments) -> str:
    """The one line of the DataError that a call raises; it names the file."""
    with pytest.raises(DataError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert str(arguments[0]) in message
    return message


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_eight_bit_files_stay_bytes(tmp_path, suffix):
    Image.fromarray(PICTURE).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == torch.uint8
    assert np.array_equal(pixels_of(image), PICTURE)


def test_the_content_decides_and_not_the_suffix(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(pixels_of(read_image(tmp_path / "a.jpg")), PICTURE)
    np.save(tmp_path / "b.npy", PICTURE)
    (tmp_path / "b.npy").rename(tmp_path / "b.png")
    assert np.array_equal(pixels_of(read_image(tmp_path / "b.png")), PICTURE)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_files_are_read(tmp_path, suffix):
    Image.new("RGB", (7, 5), (200, 100, 50)).save(tmp_path / f"a.{suffix}", quality=95)
    image = read_image(tmp_path / f"a.{suffix}").int()
    assert image.shape == (3, 5, 7)
    assert (image[:, 2, 3] - torch.tensor([200, 100, 50])).abs().max() < 6


def test_grey_palette_alpha_and_cmyk_become_rgb(tmp_path):
    Image.new("L", (2, 1), 7).save(tmp_path / "grey.png")
    Image.new("LA", (2, 1), (7, 0)).save(tmp_path / "grey_alpha.png")
    Image.new("RGBA", (2, 1), (1, 2, 3, 0)).save(tmp_path / "alpha.png")
    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    Image.new("1", (2, 1), 1).save(tmp_path / "bits.png")
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 4, 5, 6])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "transparent.png", transparency=b"\x00\x80")
    expected = {
        "grey.png": (7, 7, 7),
        "grey_alpha.png": (7, 7, 7),
        "alpha.png": (1, 2, 3),
        "cmyk.tif": (255, 0, 0),
        "bits.png": (255, 255, 255),
        "palette.png": (4, 5, 6),
        "transparent.png": (4, 5, 6),
    }
    for name, colour in expected.items():
        assert tuple(read_image(tmp_path / name)[:, 0, 1].tolist()) == colour, name


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_sixteen_bit_png_keeps_all_bits(tmp_path, channels, colour):
    stored = np.random.default_rng(1).integers(0, 65536, (4, 6, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(stored, 16, colour))
    image = read_image(tmp_path / "a.png", channels)
    assert image.dtype == torch.float32
    assert np.array_equal(np.round(pixels_of(image).astype(np.float64) * 65535), stored)
    as_rgb = pixels_of(read_image(tmp_path / "a.png", 3))
    kept = stored[..., :3] if channels > 2 else stored[..., :1].repeat(3, axis=2)
    assert np.array_equal(np.round(as_rgb.astype(np.float64) * 65535), kept)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_images_and_masks(tmp_path, orientation):
    # A table of its own: what each orientation asks for, written with other operations than the library's.
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.rot90(np.fliplr(a), 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.fliplr(a), -1),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    deep = PICTURE.astype(np.uint16) * 257
    (tmp_path / "deep.png").write_bytes(png(deep, 16, 2, orientation))
    bands = np.arange(5 * 7 * 5, dtype=np.uint16).reshape(5, 7, 5)
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack", planarconfig="contig", extratags=[tag])
    ids = (PICTURE[..., 0] % 2).astype(np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.save(tmp_path / "mask.png", exif=exif)

    assert np.array_equal(pixels_of(read_image(tmp_path / "a.png")), upright(PICTURE))
    assert np.allclose(pixels_of(read_image(tmp_path / "deep.png")), upright(PICTURE) / 255, atol=1e-6)
    read = np.round(pixels_of(read_image(tmp_path / "bands.tif", 5)) * 65535)
    assert np.array_equal(read, upright(bands))
    assert np.array_equal(read_mask(tmp_path / "mask.png", TWO).numpy(), upright(ids))
    for name in ("a.png", "deep.png", "bands.tif", "mask.png"):
        assert image_size(tmp_path / name) == upright(ids).shape, name


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 36614
    Image.new("RGB", (5, 3)).save(tmp_path / f"a{suffix}", exif=exif)
    assert image_size(tmp_path / f"a{suffix}") == (3, 5)
    assert read_image(tmp_path / f"a{suffix}").shape == (3, 3, 5)


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_orientation_of_tiff_and_jpeg(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.tif", "a.jpg"):
        Image.fromarray(PICTURE).save(tmp_path / name, exif=exif)
        size = (5, 7) if orientation == 1 else (7, 5)
        assert image_size(tmp_path / name) == size
        assert read_image(tmp_path / name).shape == (3, *size)


@pytest.mark.parametrize("channels", [2, 4, 5, 8])
def test_tiff_with_many_channels(tmp_path, channels):
    stored = np.random.default_rng(2).integers(0, 65536, (4, 6, channels), dtype=np.uint16)
    contiguous, planes, pages = tmp_path / "contig.tif", tmp_path / "planes.tif", tmp_path / "pages.tif"
    tifffile.imwrite(contiguous, stored, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(planes, np.moveaxis(stored, 2, 0), photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(pages, np.moveaxis(stored, 2, 0), photometric="minisblack")
    for path in (contiguous, planes, pages):
        image = read_image(path, channels)
        assert np.array_equal(np.round(pixels_of(image).astype(np.float64) * 65535), stored), path.name
        assert image_size(path) == (4, 6)
    tifffile.imwrite(tmp_path / "bytes.tif", (stored >> 8).astype(np.uint8), photometric="minisblack")
    assert read_image(contiguous, channels).dtype == torch.float32


def test_sixteen_bit_rgb_tiff_keeps_all_bits(tmp_path):
    stored = np.random.default_rng(3).integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb")
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(np.round(pixels_of(image).astype(np.float64) * 65535), stored)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked there")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_process_that_is_forked_while_a_thread_loads_can_load(tmp_path, monkeypatch):
    def load(*arguments, **options) -> np.ndarray:
        inside.set()
        time.sleep(0.2)  # in which the process is forked, if it could
        return original(*arguments, **options)

    inside, original = threading.Event(), np.load
    monkeypatch.setattr(np, "load", load)
    np.save(tmp_path / "a.npy", PICTURE)
    thread = threading.Thread(target=read_image, args=[tmp_path / "a.npy"])
    thread.start()
    inside.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends it where it would wait for ever
        try:
            read_image(tmp_path / "a.npy")
            os._exit(0)
        finally:
            os._exit(1)  # or it would go on with the tests
    thread.join()
    assert os.waitpid(child, 0) == (child, 0)


def test_threads_load_arrays_one_after_the_other(tmp_path, monkeypatch):
    def load(*arguments, **options) -> np.ndarray:
        inside.append(True)
        time.sleep(0.01)  # long enough for another thread to come in, if it could
        together.append(len(inside))
        inside.pop()
        return original(*arguments, **options)

    inside: list[bool] = []
    together: list[int] = []
    original = np.load
    monkeypatch.setattr(np, "load", load)
    np.save(tmp_path / "a.npy", PICTURE)
    with ThreadPoolExecutor(4) as threads:
        images = [*threads.map(read_image, [tmp_path / "a.npy"] * 8)]
        sizes = [*threads.map(image_size, [tmp_path / "a.npy"] * 8)]
    assert together == [1] * 16
    assert all(torch.equal(image, image_tensor(PICTURE)) for image in images)
    assert sizes == [(5, 7)] * 8


def test_float_files_are_on_the_scale_already(tmp_path):
    stored = np.random.default_rng(4).random((4, 6, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", stored)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig="contig")
    Image.fromarray(stored[..., 0]).save(tmp_path / "one.tif")
    assert np.array_equal(pixels_of(read_image(tmp_path / "a.npy", 5)), stored)
    assert np.array_equal(pixels_of(read_image(tmp_path / "a.tif", 5)), stored)
    assert np.array_equal(pixels_of(read_image(tmp_path / "one.tif", 1))[..., 0], stored[..., 0])
    np.save(tmp_path / "grey.npy", stored[..., 0].astype(np.float64))
    assert np.array_equal(pixels_of(read_image(tmp_path / "grey.npy"))[..., 2], stored[..., 0])


def test_arrays_without_a_known_meaning_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3), dtype=np.int32))
    assert "no known scale for int32" in fault(read_image, path)
    np.save(path, np.full((2, 3), np.nan, dtype=np.float32))
    assert "not finite" in fault(read_image, path)
    np.save(path, np.zeros((1, 2, 3, 3), dtype=np.uint8))
    assert "save it as H W C" in fault(read_image, path)
    assert "save it as H W C" in fault(image_size, path)
    np.save(path, np.zeros((0, 3), dtype=np.uint8))
    assert "without pixels" in fault(read_image, path)
    np.save(path, np.zeros((3, 8, 9), dtype=np.uint8))
    assert "looks like C H W" in fault(read_image, path)
    np.save(path, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    assert "not readable" in fault(read_image, path)


def test_a_wrong_number_of_channels_names_the_setting(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    assert "3 channels where the network takes 4" in fault(read_image, tmp_path / "a.png", 4)
    assert "--model.in_channels 3" in fault(read_image, tmp_path / "a.png", 1)
    with pytest.raises(DataError, match="the upload: 2 channels"):
        image_tensor(np.zeros((4, 4, 2), np.uint8), 3, "the upload")


def test_an_opened_image_is_read_alike(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(image_tensor(opened), read_image(tmp_path / "a.png"))
    read_only = PICTURE[::-1]
    read_only.flags.writeable = False
    assert np.array_equal(pixels_of(image_tensor(read_only)), read_only)
    assert image_tensor(PICTURE[..., 0]).shape == (3, 5, 7)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "npy"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.97])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_truncated_file_is_never_half_an_image(tmp_path, suffix, keep):
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(5).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    if suffix == "npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert "copy it again" in fault(read_image, path)


def test_truncated_sixteen_bit_png_and_tiff(tmp_path):
    pixels = np.random.default_rng(6).integers(0, 65536, (60, 70, 3), dtype=np.uint16)
    path = tmp_path / "a.png"
    content = png(pixels, 16, 2)
    path.write_bytes(content[: len(content) // 2])
    assert "copy it again" in fault(read_image, path)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    assert "copy it again" in fault(read_image, tmp_path / "a.tif")


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    assert "not an image" in fault(read_image, tmp_path / "a.png")
    assert "not an image" in fault(image_size, tmp_path / "a.png")
    assert "no such file" in fault(read_image, tmp_path / "b.png")
    assert "not readable" in fault(read_image, tmp_path)


def test_a_decompression_bomb_is_refused_and_a_large_scene_is_not(tmp_path):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    assert "cut it into smaller files" in fault(read_image, tmp_path / "bomb.png")
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    (tmp_path / "scene.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x"))
    assert image_size(tmp_path / "scene.png") == (20_000, 20_000)  # no warning either: warnings are errors here


def test_masks_of_ids_in_every_form(tmp_path):
    ids = np.array([[0, 1, 255], [1, 0, 1]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids)
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(ids.astype(np.int32)).save(tmp_path / "long.tif")
    Image.fromarray(np.stack([ids, np.full_like(ids, 7)], axis=2)).save(tmp_path / "alpha.png")
    np.save(tmp_path / "array.npy", ids.astype(np.int64))
    np.save(tmp_path / "array3.npy", ids[..., None])
    Image.fromarray(ids).save(tmp_path / "lossless.webp", lossless=True)  # in RGB, for WebP has no grey
    Image.fromarray(ids).convert("RGB").save(tmp_path / "rgb.png")
    Image.fromarray(ids).convert("RGBA").save(tmp_path / "rgba.png")
    for path in sorted(tmp_path.iterdir()):
        mask = read_mask(path, TWO)
        assert mask.dtype == torch.uint8, path.name
        assert np.array_equal(mask.numpy(), ids), path.name
    # Where colours are declared, greys are colours, too.
    grey = Classes(("sky", "road"), palette=((0, 0, 0), (1, 1, 1)), ignore_colour=(255, 255, 255))
    assert np.array_equal(read_mask(tmp_path / "lossless.webp", grey).numpy(), ids)
    white = Classes(("sky", "road"), palette=((1, 1, 1), (0, 0, 0)), ignore_colour=(255, 255, 255))
    assert np.array_equal(read_mask(tmp_path / "rgb.png", white).numpy(), np.where(ids < 2, 1 - ids, ids))


def test_masks_of_few_bits_hold_ids_and_not_shades(tmp_path):
    ids = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=np.uint8)
    four = Classes(("a", "b", "c", "d"))
    for bits in (2, 4):
        (tmp_path / "a.png").write_bytes(png(ids, bits, 0))
        assert np.array_equal(read_mask(tmp_path / "a.png", four).numpy(), ids)
    Image.fromarray(ids.astype(bool)).save(tmp_path / "b.png")
    assert np.array_equal(read_mask(tmp_path / "b.png", four).numpy(), ids > 0)
    Image.fromarray(ids.astype(bool)).save(tmp_path / "b.tif")
    assert np.array_equal(read_mask(tmp_path / "b.tif", four).numpy(), ids > 0)


def test_raw_ids_become_classes(tmp_path):
    Image.fromarray(np.array([[7, 1000, 300, 9]], dtype=np.uint16)).save(tmp_path / "a.png")
    classes = Classes(("sky", "road"), ignore=9, values={7: 1, 1000: 0, 300: IGNORE})
    assert read_mask(tmp_path / "a.png", classes).tolist() == [[1, 0, 255, 255]]
    Image.fromarray(np.array([[7, 9], [8, 7]], dtype=np.uint8)).save(tmp_path / "b.png")
    small = Classes(("sky", "road"), ignore=9, values={7: 1, 8: 0})
    assert read_mask(tmp_path / "b.png", small).tolist() == [[1, 255], [0, 1]]


def test_a_mask_that_fits_into_memory_but_once(tmp_path, monkeypatch):
    def short(*_):
        raise MemoryError

    write_mask(tmp_path / "a.png", np.zeros((2, 2), dtype=np.uint8), Classes(("a",)))
    monkeypatch.setattr(files, "_from_ids", short)
    assert "there is no memory for all its pixels" in fault(read_mask, tmp_path / "a.png", Classes(("a",)))


def test_values_outside_the_classes_are_counted(tmp_path):
    ids = np.array([[0, 1, 7, 7, 9, 255]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "a.png")
    message = fault(read_mask, tmp_path / "a.png", TWO)
    assert "values outside the 2 classes: 7 (2 pixels), 9 (1 pixels);" in message
    assert '"values"' in message
    assert '"ignore"' in message
    np.save(tmp_path / "a.npy", np.array([[0, -1, 70_000]]))
    assert "-1 (1 pixels), 70000 (1 pixels)" in fault(read_mask, tmp_path / "a.npy", TWO)
    Image.fromarray(np.arange(20, dtype=np.uint8)[None]).save(tmp_path / "b.png")
    assert "and 13 others" in fault(read_mask, tmp_path / "b.png", TWO)


def test_colours_are_looked_up_exactly(tmp_path):
    colours = np.array([[[200, 0, 0], [10, 20, 30], [0, 0, 0]]], dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([colours, np.full((1, 3), 9, np.uint8)])).save(tmp_path / "rgba.png")
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    for name in ("rgb.png", "rgba.png", "rgb.tif"):
        assert read_mask(tmp_path / name, COLOURED).tolist() == [[1, 0, 255]], name


def test_undeclared_colours_are_counted(tmp_path):
    colours = np.array([[[200, 0, 0], [200, 0, 1], [200, 0, 1], [255, 255, 255]]], dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    message = fault(read_mask, tmp_path / "a.png", COLOURED)
    assert "colours that no class has: [200, 0, 1] (2 pixels), [255, 255, 255] (1 pixels);" in message
    assert '"ignore_color"' in message
    message = fault(read_mask, tmp_path / "a.png", TWO)
    assert "[200, 0, 1] (2 pixels)" in message
    assert '"palette"' in message
    twice = Classes(("sky", "road"), palette=((200, 0, 0), (200, 0, 0)))
    assert "one colour twice" in fault(read_mask, tmp_path / "a.png", twice)


def test_masks_that_cannot_be_exact_are_refused(tmp_path):
    ids = np.zeros((8, 8), dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "hidden.png")
    assert "JPEG changes label values; save masks as PNG" in fault(read_mask, tmp_path / "hidden.png", TWO)
    Image.fromarray(ids).save(tmp_path / "a.webp", quality=80)
    assert "lossy WebP changes label values" in fault(read_mask, tmp_path / "a.webp", TWO)
    np.save(tmp_path / "a.npy", np.zeros((2, 2), dtype=np.float32))
    assert "whole numbers" in fault(read_mask, tmp_path / "a.npy", TWO)
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 4), dtype=np.uint8))
    assert "one channel" in fault(read_mask, tmp_path / "b.npy", TWO)
    Image.new("CMYK", (2, 2)).save(tmp_path / "a.tif")
    assert "mode CMYK" in fault(read_mask, tmp_path / "a.tif", TWO)


def test_a_written_mask_reads_back_and_has_the_colours(tmp_path):
    mask = np.array([[0, 1, 255]], dtype=np.uint8)
    path = tmp_path / "new" / "mask.png"
    write_mask(path, mask, COLOURED)
    assert np.array_equal(read_mask(path, COLOURED).numpy(), mask)
    with Image.open(path) as opened:
        assert opened.mode == "P"
        assert np.array(opened.convert("RGB")).tolist() == [[[10, 20, 30], [200, 0, 0], [0, 0, 0]]]
    write_mask(path, mask * 0, COLOURED)
    assert read_mask(path, COLOURED).max() == 0
    assert [entry.name for entry in Path(path.parent).iterdir()] == ["mask.png"]


def test_an_array_that_says_to_be_larger_than_memory(tmp_path):
    path = tmp_path / "large.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 10**7, 3)})
    assert "there is no memory for all its pixels; cut it into smaller files" in fault(read_image, path)
