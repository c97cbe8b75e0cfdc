"""Predictions as the server of a benchmark wants them: its own ids, its own file names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from asymseg.atomic import atomic_file
from asymseg.data.dataset import DataSet
from asymseg.data.files import read_image
from asymseg.data.prefetching import prefetched
from asymseg.errors import DataError
from asymseg.prediction.predict import Predictor


def submission_writer(dataset: DataSet, split: str, folder: Path) -> Callable[[str, Tensor], None]:
    """What writes the class ids of one image, by its name, into `folder`.

    Raises DataError where nobody takes submissions of the data set, or where other PNGs lie in the folder: a server
    takes two files of one image for a mistake.
    """
    origin = dataset.origin
    if origin is None or not origin.submission_ids:
        raise DataError(
            "no form of submission is known for this data; there is one for cityscapes:PATH and ade20k:PATH"
        )
    ids = np.asarray(origin.submission_ids, dtype=np.uint8)
    ending = origin.submission_ending
    images = dataset.splits.get(split) or dataset.unlabelled.get(split, ())
    expected = {f"{image.name}{ending}" for image in images}
    strange = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.png")
        if path.name not in expected or path.parent != folder
    )
    if strange:
        raise DataError(f"{folder}: holds other PNGs, such as {strange[0]}; remove them, or name an empty folder")

    def write(name: str, prediction: UInt8[Tensor, "h w"]) -> None:
        with atomic_file(folder / f"{name}{ending}") as temporary:
            Image.fromarray(ids[prediction.cpu().numpy()]).save(temporary, format="PNG")

    return write


def submit(
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    folder: Path,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the predictions of a part whose labels are kept by others; how many they are."""
    images = dataset.unlabelled.get(split)
    if not images:
        raise DataError(f"no images without labels in the split {split!r}; there is {', '.join(dataset.splits)}")
    if not dataset.classes.same_names(predictor.info.classes):
        raise DataError("the model's classes are not those of the data set; take a model that was trained on it")
    write = submission_writer(dataset, split, folder)
    channels = len(predictor.info.mean)
    decoded = prefetched(images, lambda image: read_image(image.image, channels), workers)
    for done, (image, pixels) in enumerate(zip(images, decoded, strict=True), start=1):
        write(image.name, predictor.class_map(pixels))
        if progress is not None:
            progress(done, len(images))
    return len(images)
