"""Train the same network with both attention blocks and with neither, on scenes that need long-range context.

    python examples/long_range.py --out demo

In each scene the colour of one beacon decides the class of all discs, and the discs look alike. The page it leaves,
`demo/index.html`, and the picture `demo/comparison.png` show which network can tell them apart.
"""

import argparse
import base64
import platform
import shutil
import time
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path

import torch
from jinja2 import Template
from PIL import Image
from rich.console import Console

import asymseg
from asymseg.config import make_config, read_config
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.data.loader import read_pair
from asymseg.data.sample import write_sample
from asymseg.evaluation.evaluate import Evaluation
from asymseg.prediction.overlay import as_picture, colour_mask

DISCS = ("red disc", "green disc", "blue disc")
SCENES_SHOWN = 5
ENLARGED = 2


@dataclass(frozen=True)
class Contestant:
    """A network of the comparison, trained and measured."""

    title: str
    folder: Path
    result: Evaluation
    seconds: float
    parameters: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Long-range context on the sample scenes, with and without the blocks."
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for scenes, runs, picture and page")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each network")
    parser.add_argument("--train", type=int, default=256, help="scenes to learn from")
    arguments = parser.parse_args()
    out, console = arguments.out, Console()
    for name in ("scenes", "both", "neither"):  # what an earlier call left
        shutil.rmtree(out / name, ignore_errors=True)

    console.print(f"[bold]1/3[/bold] writing the scenes to {out / 'scenes'}")
    write_sample(out / "scenes", train=arguments.train)
    dataset = open_dataset(out / "scenes")
    console.print("[bold]2/3[/bold] training the network with both blocks, then with neither")
    both = run("with both blocks (AFNB, APNB)", out / "both", dataset, "afnb", "apnb", arguments.steps, console)
    neither = run("with neither", out / "neither", dataset, "none", "none", arguments.steps, console)
    console.print("[bold]3/3[/bold] drawing the comparison")
    picture = draw(dataset, both, neither)
    picture.save(out / "comparison.png")
    (out / "index.html").write_text(page(picture, dataset, (both, neither), arguments.steps), encoding="utf-8")
    for contestant in (both, neither):
        console.print(
            f"{contestant.title}: test mIoU {contestant.result.scores.miou:.3f}, "
            f"IoU of the discs {disc_iou(contestant, dataset):.3f}"
        )
    console.print(f"look at {out / 'index.html'} and {out / 'comparison.png'}")


def run(
    title: str, folder: Path, dataset: DataSet, fusion: str, context: str, steps: int, console: Console
) -> Contestant:
    """Train by the recipe for the scenes, changed in the two switches alone, and measure on the test scenes."""
    config = make_config(
        read_config("sample"), {"model": {"fusion": fusion, "context": context}, "train": {"steps": steps}}
    )
    started = time.monotonic()
    asymseg.train(dataset, config, out=folder, console=console)
    seconds = time.monotonic() - started
    predictor = asymseg.load(folder / "best")
    result = asymseg.evaluate(predictor, dataset, "test", out=folder / "test")
    parameters = sum(parameter.numel() for parameter in predictor.network.parameters())
    return Contestant(title, folder, result, seconds, parameters)


def disc_iou(contestant: Contestant, dataset: DataSet) -> float:
    """Mean IoU of the three disc classes alone."""
    numbers = [dataset.classes.names.index(name) for name in DISCS]
    return sum(contestant.result.scores.iou[number] for number in numbers) / len(numbers)


def draw(dataset: DataSet, both: Contestant, neither: Contestant) -> Image.Image:
    """A row for each scene: the scene, the truth, and what each network says."""
    predictors = [asymseg.load(contestant.folder / "best") for contestant in (both, neither)]
    rows = []
    for pair in dataset.splits["test"][:SCENES_SHOWN]:
        image, truth = read_pair(pair, dataset.classes)
        masks = [truth.numpy()] + [predictor.class_map(image).cpu().numpy() for predictor in predictors]
        rows.append([as_picture(image.numpy())] + [colour_mask(mask, dataset.classes) for mask in masks])
    height, width = rows[0][0].shape[:2]
    gap = 6
    size = (ENLARGED * width, ENLARGED * height)
    sheet = Image.new("RGB", ((size[0] + gap) * 4 - gap, (size[1] + gap) * len(rows) - gap), "white")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            enlarged = Image.fromarray(cell).resize(size, Image.Resampling.NEAREST)
            sheet.paste(enlarged, (x * (size[0] + gap), y * (size[1] + gap)))
    return sheet


def page(picture: Image.Image, dataset: DataSet, contestants: tuple[Contestant, ...], steps: int) -> str:
    """The page, in one file."""
    encoded = BytesIO()
    picture.save(encoded, "PNG")
    return PAGE.render(
        picture=base64.b64encode(encoded.getvalue()).decode(),
        classes=list(zip(dataset.classes.names, dataset.classes.palette, strict=True)),
        contestants=[(contestant, disc_iou(contestant, dataset)) for contestant in contestants],
        images={split: len(pairs) for split, pairs in dataset.splits.items()},
        steps=steps,
        hardware=f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        today=date.today().isoformat(),
    )


PAGE = Template(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>The same discs, told apart only by context</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 64rem; margin: 3rem auto; padding: 0 1rem; }
  h1 { font-size: 2rem; line-height: 1.2; margin-bottom: .3rem; }
  .heads { display: grid; grid-template-columns: repeat(4, 1fr); font-size: .85rem; margin-top: 2rem; gap: .4rem; }
  .heads span { align-self: end; }
  img { width: 100%; image-rendering: pixelated; }
  table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; font-variant-numeric: tabular-nums; }
  td, th { text-align: right; padding: .4rem .6rem; border-bottom: 1px solid #8884; font-weight: normal; }
  td:first-child, th:first-child { text-align: left; }
  .big { font-size: 1.5rem; font-weight: 600; }
  .key i { display: inline-block; width: .9em; height: .9em; margin: 0 .35em 0 1em; vertical-align: -.1em; }
  small { opacity: .75; }
</style>
<h1>The same discs, told apart only by context</h1>
<p>In each scene the colour of one beacon decides the class of all discs. The discs themselves look alike, so a network
that sees only their surroundings cannot name them. Both networks below have the same backbone, data, seed and number
of steps; one has the asymmetric non-local blocks, the other has not.</p>
<div class="heads"><span>scene</span><span>truth</span>
{% for contestant, _ in contestants %}<span>{{ contestant.title }}</span>{% endfor %}</div>
<img alt="Test scenes, their truth, and the masks of both networks" src="data:image/png;base64,{{ picture }}">
<p class="key">{% for name, colour in classes -%}
<i style="background:rgb{{ colour }}"></i>{{ name }}{%- endfor %}</p>
<table>
<tr><th>network<th>disc IoU<th>mIoU<th>pixel accuracy<th>parameters<th>training</tr>
{% for contestant, discs in contestants %}
<tr><td>{{ contestant.title }}<td class="big">{{ "%.3f" % discs }}<td>{{ "%.3f" % contestant.result.scores.miou }}
<td>{{ "%.3f" % contestant.result.scores.pixel_accuracy }}<td>{{ "{:,}".format(contestant.parameters) }}
<td>{{ "%.0f" % contestant.seconds }} s</tr>
{% endfor %}
</table>
<small>Measured on {{ images.test }} test scenes after {{ steps }} steps of 16 of {{ images.train }} training scenes,
best of the validations on {{ images.val }}; {{ hardware }}, {{ today }}. One seed. Made by
<code>python examples/long_range.py --steps {{ steps }}</code>. Each network's own report:
{% for contestant, _ in contestants %}<a href="{{ contestant.folder.name }}/test/report.html">{{ contestant.title }}</a>
{% endfor %}</small>
</html>
""",
    autoescape=True,
)

if __name__ == "__main__":
    main()
