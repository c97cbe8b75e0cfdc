"""A raster of any size, read window by window through rasterio: its pixels, what of them is no data, where it lies."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from asymseg.data.files import image_tensor
from asymseg.errors import AsymsegError, DataError
from asymseg.model.info import ModelInfo

_MOST_CACHE = 512 * 2**20
_LEAST_CACHE = 64 * 2**20


class Raster:
    """An open raster as a network sees it: `size`, and any window of it as `read_image` would give it.

    A pixel is no data where the mask, the alpha or the declared value of every band says so; among floats, where any
    band does or is not finite. There the network sees the mean of its training data.

    Without `bands` all but alpha are taken; they must be as many as the network's channels, or a single one, grey or
    palette, for a network of three. Raises DataError for a file that cannot be opened or does not fit, AsymsegError
    where rasterio is not installed.
    """

    def __init__(self, path: Path, info: ModelInfo, bands: Sequence[int] | None = None) -> None:
        self.path = path
        with _explained(path):
            self.dataset: Any = _open(path)
        self.size: tuple[int, int] = (self.dataset.height, self.dataset.width)
        mean = info.mean if info.channel_order == "RGB" else info.mean[::-1]
        self.channels = len(mean)
        try:
            self.bands = self._choose(bands)
            self._kind = self._check_type()
        except DataError:
            self.dataset.close()
            raise
        single = len(self.bands) == 1 and self.channels == 3
        self._colours = self._palette() if single else None
        fill = np.array(mean, dtype=np.float32)
        scale = {"uint8": 255, "uint16": 65535}.get(self._kind)
        self._fill = fill if scale is None else np.rint(fill * scale).clip(0, scale).astype(self._kind)  # c
        masks = [self.dataset.mask_flag_enums[band - 1] for band in self.bands]
        self._all_valid = all("all_valid" in [flag.name for flag in flags] for flags in masks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dataset.close()

    def read(self, rows: slice, columns: slice) -> Tensor:
        """A window, C H W: bytes, or floats 0..1, as `asymseg.data.files.read_image` gives them."""
        return self.read_valid(rows, columns)[0]

    def read_valid(self, rows: slice, columns: slice) -> tuple[Tensor, Bool[np.ndarray, "h w"]]:
        """A window, and which of its pixels hold data."""
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with _explained(self.path, f", rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}"):
            pixels = np.moveaxis(self.dataset.read(self.bands, window=window), 0, 2)  # h w bands
            valid = np.ones(pixels.shape[:2], dtype=bool)
            if not self._all_valid:
                masks = self.dataset.read_masks(self.bands, window=window) != 0
                valid = masks.all(axis=0) if self._kind == "float" else masks.any(axis=0)
        if self._kind == "float":
            valid &= np.isfinite(pixels).all(axis=2)
        if self._colours is not None:
            pixels = self._colours[pixels[..., 0]]
        elif pixels.shape[2] < self.channels:
            pixels = pixels.repeat(self.channels, axis=2)
        if not valid.all():
            pixels = np.where(valid[..., None], pixels, self._fill)
        image = image_tensor(pixels, self.channels, self.path)
        return image, valid

    @contextmanager
    def cached(self, height: int) -> Iterator[None]:
        """While this lasts, GDAL keeps as many decoded blocks as windows of this height read more than once.

        Its own measure is a twentieth of the machine's memory.
        """
        import rasterio

        block = max(shape[0] for shape in self.dataset.block_shapes)
        rows = min(height + 2 * block, self.size[0])
        needed = 2 * rows * self.size[1] * self.dataset.count * np.dtype(self.dataset.dtypes[0]).itemsize
        with rasterio.Env(GDAL_CACHEMAX=max(_LEAST_CACHE, min(needed, _MOST_CACHE))):
            yield

    def _choose(self, bands: Sequence[int] | None) -> list[int]:
        """The bands to read, counted from 1."""
        count = self.dataset.count
        if bands is None:
            kinds = [colour.name for colour in self.dataset.colorinterp]
            chosen = [number for number, kind in enumerate(kinds, start=1) if kind != "alpha"]
        else:
            chosen = list(bands)
            absent = [band for band in chosen if not 1 <= band <= count]
            if absent:
                raise DataError(f"{self.path}: has no band {absent[0]}; its bands are 1 to {count}")
        if len(chosen) != self.channels and not (len(chosen) == 1 and self.channels == 3):
            wish = " ".join(str(number) for number in range(1, self.channels + 1))
            raise DataError(
                f"{self.path}: {len(chosen)} bands where the network takes {self.channels}; "
                f"choose them, as in --bands {wish}"
            )
        return chosen

    def _check_type(self) -> str:
        """What the bands hold: uint8, uint16 or float."""
        types = {self.dataset.dtypes[band - 1] for band in self.bands}
        kinds = {"float" if kind in ("float32", "float64", "float16") else kind for kind in types}
        if len(kinds) != 1 or not kinds <= {"uint8", "uint16", "float"}:
            raise DataError(
                f"{self.path}: no known scale for {' and '.join(sorted(types))} bands; "
                "convert it to uint8, uint16, or float from 0 to 1"
            )
        return kinds.pop()

    def _palette(self) -> np.ndarray | None:
        """Colour of each value, 256 x 3, where the file has a palette."""
        band = self.bands[0]
        if self._kind != "uint8" or self.dataset.colorinterp[band - 1].name != "palette":
            return None
        table = np.zeros((256, 3), dtype=np.uint8)
        for value, colour in self.dataset.colormap(band).items():
            table[value] = colour[:3]
        return table


def import_rasterio() -> Any:
    """The package, or an AsymsegError that says how to get it."""
    try:
        import rasterio
    except ImportError:
        raise AsymsegError('rasters need rasterio: pip install "asymseg[raster]"') from None
    return rasterio


def _open(path: Path) -> Any:
    rasterio = import_rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path)


@contextmanager
def _explained(path: Path, part: str = "") -> Iterator[None]:
    """Turn what GDAL says of a file into one line that names the file and the part of it."""
    rasterio = import_rasterio()
    try:
        yield
    except rasterio.errors.RasterioError as error:
        if not path.exists():
            raise DataError(f"{path}: no such file; check the path") from None
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"{path}{part}: not readable ({reason}); it may be damaged: copy it again") from None
