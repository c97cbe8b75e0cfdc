"""Suspected label errors on disk: a JSON list, and a page of its own that shows each in its image."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from asymseg.classes import IGNORE
from asymseg.data.dataset import DataSet
from asymseg.data.loader import read_pair
from asymseg.evaluation.label_errors import Suspect
from asymseg.evaluation.records import write_json
from asymseg.evaluation.regions import inner
from asymseg.pages import hex_colour, picture_address, render_page, save_page
from asymseg.prediction.overlay import as_picture, colour_mask
from asymseg.prediction.predict import Predictor

OUTLINE = (255, 0, 170)
"""A colour that neither streets nor palettes are likely to hold: also `--accent` in the template."""

PICTURE = 300
"""About how many pixels wide or high a crop is shown, whichever is more."""


@dataclass(frozen=True)
class Card:
    """What the page says of one suspect."""

    rank: int
    suspect: Suspect
    pictures: tuple[tuple[str, str], ...]
    """Caption and data address of each."""


def write_suspects(
    folder: Path,
    suspects: Sequence[Suspect],
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    *,
    shown: int = 60,
    pictures: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `label_errors.json` with all suspects and `label_errors.html` with the first `shown`; return the page.

    Args:
        folder: Where to.
        suspects: What `find_label_errors` found, best first.
        predictor: The model it was found with; it predicts the images that are shown once more.
        dataset: The data it was found in.
        split: And which part.
        shown: How many the page shows.
        pictures: Whether it shows them as pictures; without, it can be passed on where the data may not.
        progress: Called with (images done, images in all).
    """
    entries = [
        {
            "rank": rank,
            "image": suspect.image,
            "box": list(suspect.box),
            "area": suspect.area,
            "labelled": suspect.labelled,
            "predicted": suspect.predicted,
            "confidence": suspect.confidence,
            "doubt": suspect.doubt,
            "score": suspect.score,
        }
        for rank, suspect in enumerate(suspects, start=1)
    ]
    write_json(folder / "label_errors.json", {"split": split, "box": "top, left, bottom, right", "suspects": entries})
    cards = _cards(suspects[:shown], predictor, dataset, split, pictures, progress)
    page = folder / "label_errors.html"
    save_page(page, _render(cards, dataset, split, len(suspects)))
    return page


def _cards(
    suspects: Sequence[Suspect],
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    pictures: bool,
    progress: Callable[[int, int], None] | None,
) -> list[Card]:
    """In their order; each image is read and predicted once and then forgotten."""
    ranked = enumerate(suspects, start=1)
    if not pictures:
        return [Card(rank, suspect, ()) for rank, suspect in ranked]
    of_image: defaultdict[str, list[tuple[int, Suspect]]] = defaultdict(list)
    for rank, suspect in ranked:
        of_image[suspect.image].append((rank, suspect))
    pairs = {pair.name: pair for pair in dataset.splits[split]}
    cards = []
    for done, (name, group) in enumerate(of_image.items(), start=1):
        image, label = read_pair(pairs[name], dataset.classes, len(predictor.info.mean))
        prediction = predictor.class_map(image).cpu().numpy()
        views = (
            ("image", as_picture(image.numpy())),
            ("label", _coloured(label.numpy(), dataset)),
            ("prediction", _coloured(prediction, dataset)),
        )
        for rank, suspect in group:
            crops = tuple((caption, _crop(view, suspect, caption == "image")) for caption, view in views)
            cards.append(Card(rank, suspect, crops))
        if progress is not None:
            progress(done, len(of_image))
    return sorted(cards, key=lambda card: card.rank)


def _coloured(mask: UInt8[np.ndarray, "h w"], dataset: DataSet) -> UInt8[np.ndarray, "h w 3"]:
    """In the classes' colours, ignored pixels white with grey stripes."""
    colours = colour_mask(mask, dataset.classes)
    stripes = np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1])) % 6 < 1
    colours[mask == IGNORE] = 255
    colours[(mask == IGNORE) & stripes] = 150
    return colours


def _crop(view: UInt8[np.ndarray, "h w 3"], suspect: Suspect, photograph: bool) -> str:
    """The suspect with what is around it, its region outlined, as a data address."""
    top, left, bottom, right = suspect.box
    whole = np.zeros(view.shape[:2], dtype=bool)
    whole[top:bottom, left:right] = suspect.region
    margin = max(24, (bottom - top) // 2, (right - left) // 2)
    place = np.s_[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]
    part, region = view[place], whole[place]
    longest = max(region.shape)
    factor = PICTURE / longest if longest > PICTURE else PICTURE // longest
    size = (max(1, round(region.shape[1] * factor)), max(1, round(region.shape[0] * factor)))
    smooth = Image.Resampling.BICUBIC if photograph else Image.Resampling.NEAREST
    picture = np.array(Image.fromarray(part).resize(size, smooth))
    picture[_outline(np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST)))] = OUTLINE
    if photograph:
        return picture_address(Image.fromarray(picture), "JPEG", quality=88, subsampling=0)
    return picture_address(Image.fromarray(picture).quantize(256), "PNG")


def _outline(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The line just outside of a region, two pixels wide, so that the region stays to be seen."""
    line: np.ndarray = ~region & ~inner(region.astype(np.int64), 2)
    return line


def _render(cards: Sequence[Card], dataset: DataSet, split: str, found: int) -> str:
    return render_page(
        "asymseg.evaluation",
        "label_errors.html.j2",
        cards=cards,
        split=split,
        found=found,
        colours=dict(zip(dataset.classes.names, map(hex_colour, dataset.classes.palette), strict=True)),
    )
