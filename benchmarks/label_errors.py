"""Planted label errors in CamVid: how many of them stand among the first that the model's search names?

    python benchmarks/label_errors.py plant DATA PLANTED        # a copy of DATA with 40 errors in the train split
    python benchmarks/label_errors.py train PLANTED TRUNK RUN   # on the wrong labels
    python benchmarks/label_errors.py count PLANTED RUN RESULTS # rank the train split and count

DATA is CamVid in the layout of the README; TRUNK holds timm's ImageNet weights of mobilenetv2_100. Each error lies in
an image of its own, changes 400 to 20,000 labelled pixels of a region that is more than a seam (at least 100 of them
lie 3 or more pixels inside), and is of one of three kinds, in turn:

    swapped   a whole connected region of the label gets another class that is plausible for it
    erased    an object (car, pedestrian, bicyclist, sign, fence) gets the class that surrounds most of it
    drawn     a smooth blob of 400 to 6,000 pixels of a plausible wrong class is drawn into a region of one class

A suspect counts for an error where at least half of the suspect's pixels are planted ones and these are at least a
quarter of the planted region; no two suspects count for one error.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.data.dataset import open_dataset
from asymseg.data.files import read_mask
from asymseg.data.pixels import write_mask
from asymseg.evaluation.label_errors import Suspect, find_label_errors
from asymseg.evaluation.regions import connected_regions, inner
from asymseg.evaluation.results import hardware
from asymseg.evaluation.suspects import write_suspects
from asymseg.prediction.loading import load

COUNT, FIRST = 40, 60
AREA = (400, 20_000)
BLOB = (400, 6_000)
DEPTH, DEEP = 3, 100
"""A region is more than a seam where DEEP of its pixels lie DEPTH or more inside."""
OBJECTS = ("car", "pedestrian", "bicyclist", "sign", "fence")
PLAUSIBLE = {
    "sky": ("building", "tree"),
    "building": ("tree", "fence", "sign"),
    "pole": ("tree", "sign"),
    "road": ("pavement", "car"),
    "pavement": ("road", "fence"),
    "tree": ("building", "fence"),
    "sign": ("building", "tree"),
    "fence": ("building", "pavement", "tree"),
    "car": ("bicyclist", "building", "fence"),
    "pedestrian": ("bicyclist", "building"),
    "bicyclist": ("pedestrian", "car"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Planted label errors in CamVid.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, places in (
        ("plant", ("data", "planted")),
        ("train", ("planted", "trunk", "run")),
        ("count", ("planted", "run", "results")),
    ):
        command = commands.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path)
        if name == "plant":
            command.add_argument("--seed", type=int, default=2)
        if name == "train":
            command.add_argument("--steps", type=int, default=900)
    arguments = vars(parser.parse_args())
    {"plant": plant, "train": train, "count": count}[arguments.pop("command")](**arguments)


def plant(data: Path, planted: Path, seed: int) -> None:
    """Write the copy, `plants.json`, and the planted regions as `plants/NAME.png`."""
    dataset = open_dataset(data)
    for folder in ("images", "masks/train", "plants"):
        (planted / folder).mkdir(parents=True)
    for split in ("train", "val", "test"):
        (planted / "images" / split).symlink_to((data / "images" / split).resolve())
        if split != "train":
            (planted / "masks" / split).symlink_to((data / "masks" / split).resolve())
    (planted / "classes.json").write_bytes((data / "classes.json").read_bytes())

    rng = np.random.default_rng(seed)
    pairs = dataset.splits["train"]
    notes: list[dict[str, object]] = []
    for number in rng.permutation(len(pairs)):
        pair = pairs[number]
        mask = read_mask(pair.mask, dataset.classes).numpy()
        kind = ("swapped", "erased", "drawn")[len(notes) % 3]
        found = next(KINDS[kind](mask, dataset.classes, rng), None) if len(notes) < COUNT else None
        if found is not None:
            region, wrong = found
            right = int(np.bincount(mask[region]).argmax())
            names = dataset.classes.names
            notes.append(
                {
                    "image": pair.name,
                    "kind": kind,
                    "right": names[right],
                    "planted": names[wrong],
                    "area": int(region.sum()),
                    "box": box(region),
                }
            )
            mask = np.where(region, np.uint8(wrong), mask)
            Image.fromarray(region).save(planted / "plants" / f"{pair.name}.png")
        write_mask(planted / "masks" / "train" / f"{pair.name}.png", mask, dataset.classes)
    (planted / "plants.json").write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    print(f"{len(notes)} errors planted")


Planted = Iterator[tuple[np.ndarray, int]]


def swapped(mask: np.ndarray, classes: Classes, rng: np.random.Generator) -> Planted:
    for region, right in fitting_regions(mask, rng, range(len(classes))):
        yield region, classes.names.index(str(rng.choice(PLAUSIBLE[classes.names[right]])))


def erased(mask: np.ndarray, classes: Classes, rng: np.random.Generator) -> Planted:
    for region, right in fitting_regions(mask, rng, [classes.names.index(name) for name in OBJECTS]):
        around = mask[widened(region, 5) & ~region]
        others = np.bincount(around[around != IGNORE], minlength=len(classes))
        others[right] = 0
        if others.any():
            yield region, int(others.argmax())


def drawn(mask: np.ndarray, classes: Classes, rng: np.random.Generator) -> Planted:
    rows, columns = np.indices(mask.shape)
    for _ in range(100):
        area = np.exp(rng.uniform(*np.log(BLOB)))
        centre = rng.uniform(0, mask.shape[0]), rng.uniform(0, mask.shape[1])
        blob = smooth_blob(rows - centre[0], columns - centre[1], area, rng)
        inside = mask[blob & (mask != IGNORE)]
        if inside.size == 0:
            continue
        right = int(np.bincount(inside).argmax())
        region = blob & (mask == right)
        if region.sum() >= 0.9 * area and fits(region) and len(np.unique(connected_regions(region)[region])) == 1:
            yield region, classes.names.index(str(rng.choice(PLAUSIBLE[classes.names[right]])))


KINDS = {"swapped": swapped, "erased": erased, "drawn": drawn}


def fitting_regions(mask: np.ndarray, rng: np.random.Generator, wanted: list[int] | range) -> Planted:
    """Connected regions of the label that fit, the class drawn first so that the frequent ones do not crowd out."""
    regions = connected_regions(mask)
    for right in rng.permutation(np.intersect1d(mask, wanted)):
        for number in rng.permutation(np.unique(regions[mask == right])):
            region = regions == number
            if fits(region):
                yield region, int(right)


def fits(region: np.ndarray) -> bool:
    return AREA[0] <= region.sum() <= AREA[1] and (inner(region.astype(int), DEPTH) & region).sum() >= DEEP


def smooth_blob(down: np.ndarray, right: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """A disc of about this area, pulled long and with a wavy edge."""
    turn, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, 2.5))
    x = (down * np.cos(turn) + right * np.sin(turn)) * stretch
    y = (right * np.cos(turn) - down * np.sin(turn)) / stretch
    angle, edge = np.arctan2(y, x), np.ones(down.shape)
    for waves in (2, 3, 5):
        edge += rng.uniform(0, 0.2) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) < edge * np.sqrt(area / np.pi)


def widened(region: np.ndarray, steps: int) -> np.ndarray:
    return region | ~inner(region.astype(int), steps)


def box(region: np.ndarray) -> list[int]:
    """Top, left, bottom, right; the last two are outside."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]


def train(planted: Path, trunk: Path, run: Path, steps: int) -> None:
    """The recipe for CamVid, of 900 steps, or with fewer."""
    files = ["--config", "camvid-mobilenetv2", "--model.pretrained", trunk, "--out", run, "--resume"]
    switches = ["--train.steps", steps, "--train.validate_every", steps]
    command = [sys.executable, "-m", "asymseg", "train", planted, *files, *switches]
    subprocess.run([str(part) for part in command], check=True)


def count(planted: Path, run: Path, results: Path) -> None:
    """Rank the train split, write the page beside the run (it shows CamVid) and the numbers to `results`."""
    dataset = open_dataset(planted)
    predictor = load(run)
    started = time.monotonic()
    suspects = find_label_errors(predictor, dataset, "train", workers=1, most=200)
    seconds = time.monotonic() - started
    write_suspects(run / "label_errors", suspects, predictor, dataset, "train", shown=FIRST)
    plants = json.loads((planted / "plants.json").read_text(encoding="utf-8"))
    regions = {entry["image"]: np.asarray(Image.open(planted / "plants" / f"{entry['image']}.png")) for entry in plants}
    ranks: dict[str, int] = {}
    for rank, suspect in enumerate(suspects, start=1):
        if suspect.image in regions and finds(suspect, regions[suspect.image]):
            ranks.setdefault(suspect.image, rank)
    facts = {
        "planted": len(plants),
        f"found among the first {FIRST}": sum(rank <= FIRST for rank in ranks.values()),
        "precision": {str(first): sum(rank <= first for rank in ranks.values()) / first for first in (10, 20, FIRST)},
        "by kind": {
            kind: [sum(ranks.get(entry["image"], FIRST + 1) <= FIRST for entry in group), len(group)]
            for kind, group in ((kind, [entry for entry in plants if entry["kind"] == kind]) for kind in KINDS)
        },
        "images": len(dataset.splits["train"]),
        "seconds": round(seconds),
        "hardware": hardware(predictor.device),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "plants": [{**entry, "rank": ranks.get(entry["image"])} for entry in plants],
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (results / "label_errors.json").write_bytes((run / "label_errors" / "label_errors.json").read_bytes())
    print(json.dumps({name: value for name, value in facts.items() if name != "plants"}, indent=1))


def finds(suspect: Suspect, region: np.ndarray) -> bool:
    """Whether half of the suspect is planted, and that is a quarter of what was."""
    top, left, bottom, right = suspect.box
    common = int((region[top:bottom, left:right] & suspect.region).sum())
    return 2 * common >= suspect.area and 4 * common >= int(region.sum())


if __name__ == "__main__":
    main()
