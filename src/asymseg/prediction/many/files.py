"""Predict many images, one after the other in this process, and go on past what cannot be read."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from asymseg.data.pixels import Pixels, read_pixels
from asymseg.data.prefetching import prefetched
from asymseg.errors import ConfigError, DataError
from asymseg.prediction.encoding import mask_file, overlay_file, shares_file
from asymseg.prediction.many.manifest import Done, begin, record, refuse_kept
from asymseg.prediction.many.planning import Plan, overlay_name, plan_files, shares_name
from asymseg.prediction.overlay import check_opacity
from asymseg.prediction.result import AnyPredictor, Result

_TOGETHER = 256
_SECONDS = 10.0
"""Finished images are recorded when there are so many, or after so long: this much a kill may cost."""


@dataclass(frozen=True)
class Outcome:
    """Masks that were written, and one line for each image that could not be read."""

    written: tuple[Path | str, ...]
    failures: tuple[str, ...]
    before: int = 0
    """Images that an earlier run had finished."""


@dataclass(frozen=True)
class Wanted:
    """What is written of each image beside its mask, and how the network sees it where it does so by tiles."""

    overlay: bool = True
    probabilities: bool = False
    tile: int | None = None
    halo: int | None = None
    opacity: float = 0.5


def predict_files(
    predictor: AnyPredictor,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overlay: bool = True,
    probabilities: bool = False,
    tile: int | None = None,
    halo: int | None = None,
    opacity: float = 0.5,
    made_with: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict what `plan_files` finds; write `out/NAME.png` and more for each image.

    With `tile`, the network sees at once a tile of so many pixels a side and `halo` around it, for less memory and more
    time, and its blocks the whole image all the same: see `asymseg.prediction.streaming`. With `made_with`, of
    `asymseg.prediction.loading.made_with`, a manifest is kept in `out`, and images that it lists are left out.

    `opacity` is that of the overlay's colours. An image that cannot be read, or for which there is no memory, is
    reported and the rest goes on. Raises DataError and ConfigError as `plan_files` does; ConfigError for what no image
    can be predicted with, and where `made_with` is not what the manifest says; AsymsegError where the results cannot be
    written.
    """
    wanted = Wanted(overlay, probabilities, tile, halo, opacity)
    plan = plan_files(inputs, out, overlay=overlay, probabilities=probabilities)
    look = looking(predictor, wanted)
    names, before = rest_of(plan, wanted, made_with)
    finished, kept = list[Done](), 0
    last = time.monotonic()
    try:
        for done in predict_each(look, plan, names, wanted, len(predictor.info.mean)):
            finished.append(done)
            if made_with is not None and (len(finished) - kept >= _TOGETHER or time.monotonic() - last > _SECONDS):
                record(plan.out, finished[kept:])
                kept, last = len(finished), time.monotonic()
            if progress is not None:
                progress(before + len(finished), len(plan.names))
    finally:
        if made_with is not None:
            record(plan.out, finished[kept:])
    masks = [plan.mask(done.image) for done in finished if not done.failed]
    written = [plan.out.place(mask) if plan.out.local is None else plan.out.local / mask for mask in masks]
    return Outcome(tuple(written), tuple(done.failed for done in finished if done.failed), before)


def rest_of(plan: Plan, wanted: Wanted, made_with: dict[str, Any] | None) -> tuple[Sequence[str], int]:
    """The images that no earlier run has predicted, and how many one has; what failed is tried again.

    Raises ConfigError where what lies in the folder of results was made with something else.
    """
    if made_with is None:
        refuse_kept(plan.out)
        return plan.names, 0
    images = plan.source.address if plan.source.local is None else str(plan.source.local.resolve())
    with_all = {"images": images, **asdict(wanted), **made_with}
    done = {each.image for each in begin(plan.out, with_all) if not each.failed}
    rest = [name for name in plan.names if name not in done]
    return rest, len(plan.names) - len(rest)


def looking(predictor: AnyPredictor, wanted: Wanted) -> Callable[[Pixels], Result]:
    """What gives the result of an image. Raises ConfigError for what no image can be predicted with."""
    check_opacity(wanted.opacity)
    if wanted.tile is None:
        return partial(predictor, keep=wanted.probabilities)
    # Only here, so that a file is predicted without torch.
    from asymseg.prediction.predict import Predictor
    from asymseg.prediction.streaming import stream
    from asymseg.prediction.tiles import plan_tiles, reach_of

    if not isinstance(predictor, Predictor):
        raise ConfigError("an ONNX file cannot be run by tiles with the whole image's context; give the model's folder")
    reach = reach_of(predictor)
    plan_tiles(predictor, (1, 1), wanted.tile, wanted.halo, reach)  # what holds for one image holds for all
    return partial(stream, predictor, tile=wanted.tile, halo=wanted.halo, reach=reach)


def predict_each(
    look: Callable[[Pixels], Result], plan: Plan, names: Sequence[str], wanted: Wanted, channels: int
) -> Iterator[Done]:
    """Predict images and write their results, one after the other; two threads read ahead.

    Raises AsymsegError where a result cannot be written.
    """

    def decode(name: str) -> Pixels | DataError:
        try:
            return read_pixels(plan.source.read(name), channels)
        except DataError as error:
            return error

    for name, image in zip(names, prefetched(names, decode, 2), strict=True):
        if isinstance(image, DataError):
            yield Done(name, str(image))
            continue
        try:
            files = encoded(look(image), plan.mask(name), wanted)
        except ConfigError as error:  # no memory for an image of this size, or numbers too large for fp16
            yield Done(name, f"{plan.source.place(name)}: {error}")
            continue
        for file, content in files.items():
            plan.out.write(file, content)
        yield Done(name)


def encoded(result: Result, mask: str, wanted: Wanted) -> dict[str, bytes]:
    """The files of one image by their names, the mask last."""
    files: dict[str, bytes] = {}
    if wanted.probabilities:
        files[shares_name(mask)] = shares_file(result.probabilities, result.classes)
    if wanted.overlay:
        files[overlay_name(mask)] = overlay_file(result, wanted.opacity)
    files[mask] = mask_file(result)
    return files
