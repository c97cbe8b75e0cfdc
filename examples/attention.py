"""Why a disc is red: the regions of a sample scene that one pixel of it drew on, as a picture.

    python examples/attention.py --out demo

Trains the network of the sample scenes as `asymseg train` does, takes pixels of discs in test scenes, which nothing but
the colour of a beacon far away can name, and draws for each the scene, what the pixel drew on in the fusion (AFNB) and
what it drew on in the context (APNB).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console

import asymseg
from asymseg.config import make_config, read_config
from asymseg.data.dataset import open_dataset
from asymseg.data.loader import read_pair
from asymseg.data.sample import write_sample
from asymseg.prediction.overlay import as_picture
from asymseg.prediction.predict import Predictor

DISCS = ("red disc", "green disc", "blue disc")
ENLARGED, GAP = 2, 6


def main() -> None:
    parser = argparse.ArgumentParser(description="The regions that a disc's pixel drew on.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for scenes, run and picture")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps")
    parser.add_argument("--scenes", type=int, default=2, help="test scenes to draw")
    arguments = parser.parse_args()
    data, run = arguments.out / "attention-scenes", arguments.out / "attention-run"
    if not (run / "best").is_dir():
        write_sample(data, train=256)
        config = make_config(read_config("sample"), {"train": {"steps": arguments.steps}})
        asymseg.train(open_dataset(data), config, out=run, console=Console())
    picture = draw(asymseg.load(run / "best"), data, arguments.scenes)
    coarse = ImageOps.posterize(picture, bits=5)  # noise packs badly
    coarse.save(arguments.out / "attention.png", optimize=True)
    print(f"look at {arguments.out / 'attention.png'}")


def draw(predictor: Predictor, data: Path, scenes: int) -> Image.Image:
    """A row for each scene: the scene, and what a pixel within a disc drew on, block by block."""
    dataset = open_dataset(data)
    rows = []
    for pair in dataset.splits["test"][:scenes]:
        image, truth = read_pair(pair, dataset.classes)
        result = predictor(image)
        row, column = inside_a_disc(truth, [dataset.classes.names.index(name) for name in DISCS])
        attention = result.attention(row, column)
        name = dataset.classes.names[result.mask[row, column]]
        beacon = truth.numpy() == dataset.classes.names.index("beacon")
        for block in attention.blocks:
            share = block.heat[beacon].sum() / block.heat.sum()
            print(f"{pair.name}: {name} at {row}, {column}; {block.name} takes {share:.1%} from the beacon")
        scene = Image.fromarray(as_picture(image.numpy()))
        scene = scene.resize((ENLARGED * scene.width, ENLARGED * scene.height), Image.Resampling.NEAREST)
        rows.append((scene, *(attention.picture(block.name, enlarge=ENLARGED) for block in attention.blocks)))
    width, height = rows[0][0].size
    sheet = Image.new("RGB", ((width + GAP) * len(rows[0]) - GAP, (height + GAP) * len(rows) - GAP), "white")
    for number, pictures in enumerate(rows):
        for place, picture in enumerate(pictures):
            sheet.paste(picture, (place * (width + GAP), number * (height + GAP)))
    return sheet


def inside_a_disc(truth: torch.Tensor, discs: list[int]) -> tuple[int, int]:
    """The pixel of a disc that has the most pixels of discs around it."""
    of_discs = np.isin(truth.numpy(), discs).astype(np.float32)
    around = torch.nn.functional.avg_pool2d(torch.from_numpy(of_discs)[None, None], 13, 1, padding=6)[0, 0]
    row, column = divmod(int((around * torch.from_numpy(of_discs)).argmax()), truth.shape[1])
    return row, column


if __name__ == "__main__":
    main()
