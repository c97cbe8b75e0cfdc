"""Predict many images: what to read, where to write, and going on past a file that cannot be read."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from asymseg.atomic import atomic_file
from asymseg.data.decoding import IMAGE_SUFFIXES
from asymseg.data.pairing import is_data
from asymseg.data.pixels import Pixels, read_pixels
from asymseg.data.prefetching import prefetched
from asymseg.errors import ConfigError, DataError
from asymseg.prediction.overlay import OVERLAY_QUALITY
from asymseg.prediction.result import AnyPredictor, Result
from asymseg.prediction.video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Outcome:
    """Masks that were written, and one line for each image that could not be read."""

    written: tuple[Path, ...]
    failures: tuple[str, ...]


def predict_files(
    predictor: AnyPredictor,
    inputs: Path,
    out: Path,
    *,
    overlay: bool = True,
    probabilities: bool = False,
    tile: int | None = None,
    halo: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict an image, a folder (with its subfolders) or a glob; write `out/NAME.png` and more for each.

    One image may also be given a file `out` that ends in .png. With `tile`, the network sees at once a tile of so many
    pixels a side and `halo` around it, for less memory and more time, and its blocks the whole image all the same:
    see `asymseg.prediction.streaming`.

    An image that cannot be read, or for which there is no memory, is reported and the rest goes on. Raises DataError
    where nothing is to be read, where two inputs would write the same file, or where an input would be overwritten;
    ConfigError for what no image can be predicted with, and where `out` is named as a file that cannot be written.
    """
    root, paths = find_images(inputs, out)
    targets = _targets(root, paths, out, overlay, probabilities)
    written, failures = [], []
    by_tiles = None if tile is None else _by_tiles(predictor, tile, halo)

    def decode(path: Path) -> Pixels | DataError:
        try:
            return read_pixels(path, len(predictor.info.mean))
        except DataError as error:
            return error

    images = prefetched(paths, decode, 2)
    for done, (path, target, image) in enumerate(zip(paths, targets, images, strict=True), start=1):
        if isinstance(image, DataError):
            failures.append(str(image))
        else:
            try:
                result = predictor(image, keep=probabilities) if by_tiles is None else by_tiles(image)
                _write(result, target, overlay, probabilities)
                written.append(target)
            except ConfigError as error:  # there is no memory for an image of this size
                failures.append(f"{path}: {error}")
        if progress is not None:
            progress(done, len(paths))
    return Outcome(tuple(written), tuple(failures))


def find_images(inputs: Path, out: Path | None = None) -> tuple[Path, list[Path]]:
    """The images that `inputs` means, in order, and the folder their names are relative to. Raises DataError.

    What lies in `out`, a folder below that one, was written by an earlier run and is left out.
    """
    if inputs.is_file():
        return inputs.parent, [inputs]
    if inputs.is_dir():
        root = inputs
        if out is not None and out.resolve() == inputs.resolve():
            raise DataError(f"{out}: results would lie among the images themselves; choose another folder for -o")
        paths = [path for path in inputs.rglob("*") if _is_image(path)]
    else:
        root = Path(*[part for part in _before_wildcard(inputs.parts)])
        paths = [path for path in {Path(name) for name in glob.glob(str(inputs), recursive=True)} if _is_image(path)]
    if out is not None and root.resolve() in out.resolve().parents:
        paths = [path for path in paths if out.resolve() not in path.resolve().parents]
    if not paths:
        raise DataError(f"{inputs}: no images there; give an image, a folder of images or a pattern in quotes")
    return root, sorted(paths)


def _by_tiles(predictor: AnyPredictor, tile: int, halo: int | None) -> Callable[[Pixels], Result]:
    # Only here, so that a file is predicted without torch.
    from asymseg.prediction.predict import Predictor
    from asymseg.prediction.streaming import stream
    from asymseg.prediction.tiles import plan_tiles, reach_of

    if not isinstance(predictor, Predictor):
        raise ConfigError("an ONNX file cannot be run by tiles with the whole image's context; give the model's folder")
    reach = reach_of(predictor)
    plan_tiles(predictor, (1, 1), tile, halo, reach)  # what holds for one image holds for all, and is said at once
    return partial(stream, predictor, tile=tile, halo=halo, reach=reach)


def _is_image(path: Path) -> bool:
    return is_data(path.name) and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _before_wildcard(parts: Sequence[str]) -> Sequence[str]:
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return parts[:first]


def _targets(root: Path, paths: Sequence[Path], out: Path, overlay: bool, probabilities: bool) -> list[Path]:
    """Where each mask goes: the image's place below `root`, with the suffix png; or `out` itself, for one image."""
    if len(paths) == 1 and out.suffix.lower() == ".png" and not out.is_dir():
        targets = [out]
    elif out.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and not out.is_dir():
        why = "a mask is a PNG, NAME.png; or" if len(paths) == 1 else f"there are {len(paths)} images;"
        raise ConfigError(f"-o {out}: {why} give a folder")
    else:
        targets = [(out / path.relative_to(root)).with_suffix(".png") for path in paths]
    sources: dict[Path, Path] = {}
    inputs = {path.resolve() for path in paths}
    for path, target in zip(paths, targets, strict=True):
        files = [target, *([_overlay(target)] if overlay else []), *([_shares(target)] if probabilities else [])]
        for file in files:
            if file.resolve() in inputs:
                raise DataError(f"{path}: its result would overwrite the image {file}; choose another folder for -o")
        if target in sources:
            raise DataError(
                f"{sources[target]} and {path} would both write {target}; predict them into different folders"
            )
        sources[target] = path
    return targets


def _overlay(target: Path) -> Path:
    return target.with_name(f"{target.stem}_overlay.jpg")


def _shares(target: Path) -> Path:
    return target.with_name(f"{target.stem}_probabilities.npz")


def _write(result: Result, target: Path, overlay: bool, probabilities: bool) -> None:
    """All that was asked for of one image, the mask last."""
    if probabilities:
        with atomic_file(_shares(target)) as temporary:
            shares = result.probabilities.astype(np.float16)
            np.savez_compressed(temporary, probabilities=shares, classes=np.array(result.classes.names))
    if overlay:
        with atomic_file(_overlay(target)) as temporary:
            result.overlay().save(temporary, quality=OVERLAY_QUALITY)
    result.save(target)
