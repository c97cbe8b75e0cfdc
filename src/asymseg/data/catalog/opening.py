"""The data sets that are known by name, as in `cityscapes:PATH`."""

import difflib
from collections.abc import Callable
from pathlib import Path

from asymseg.data.catalog import ade20k, camvid, cityscapes, coco, coco_stuff, cvat, labelme, pascal_context, voc2012
from asymseg.data.catalog.huggingface import open_huggingface
from asymseg.data.pairing import DataSet, hold_out
from asymseg.errors import DataError

KNOWN: dict[str, Callable[[Path], DataSet]] = {
    "cityscapes": cityscapes.open_fine,
    "cityscapes-coarse": cityscapes.open_coarse,
    "ade20k": ade20k.open_ade20k,
    "voc2012": voc2012.open_voc2012,
    "voc2012-aug": voc2012.open_trainaug,
    "pascal-context": pascal_context.open_59,
    "pascal-context-60": pascal_context.open_60,
    "coco-stuff": coco_stuff.open_164k,
    "coco-stuff-10k": coco_stuff.open_10k,
    "camvid": camvid.open_camvid,
    "coco": coco.open_coco,
    "labelme": labelme.open_labelme,
    "cvat": cvat.open_cvat,
    "hf": lambda path: open_huggingface(path.as_posix()),
}
"""What can stand before the colon, and what opens the path behind it."""


def open_known(place: str, holdout: float = 0.1) -> DataSet | None:
    """The data set that `place`, NAME:PATH, names; None where it is a plain path.

    Where it has no val part a share `holdout` of the training images becomes one.
    """
    name, colon, path = place.partition(":")
    if not colon or len(name) == 1 or Path(place).exists():  # one letter is a drive of Windows
        return None
    if name not in KNOWN:
        if "/" in name or "\\" in name:
            return None
        close = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {close[0]}:{path}?" if close else f"known are {', '.join(KNOWN)}"
        raise DataError(f"{place}: no data set of the name {name!r}; {hint}")
    if not path:
        raise DataError(f"{place}: name the folder behind the colon, as in {name}:PATH")
    dataset = KNOWN[name](Path(path).expanduser())
    if "train" not in dataset.splits or "val" in dataset.splits:
        return dataset
    splits, note = hold_out(dataset.splits, holdout)
    return DataSet(dataset.classes, splits, (*dataset.notes, note), dataset.origin, dataset.unlabelled)
