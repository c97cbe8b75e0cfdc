"""CamVid on two cores: the same recipe with both blocks, with neither, and with the non-local block.

    python benchmarks/camvid.py run DATA TRUNK RESULTS    # train and test all three (hours)
    python benchmarks/camvid.py table RESULTS             # the comparison as a Markdown table

DATA is CamVid in the layout of the README; TRUNK holds timm's ImageNet weights of mobilenetv2_100. Its pictures may
not be passed on, so the reports that are kept show none.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

RECIPE = "camvid-mobilenetv2"
CONTESTANTS = {  # name: (fusion, context)
    "annnet": ("afnb", "apnb"),
    "nonlocal": ("none", "nonlocal"),
    "fcn": ("none", "none"),
}
KEPT = ("config.yaml", "log.jsonl", "run.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="CamVid on two cores.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and test all three")
    run.add_argument("data", type=Path)
    run.add_argument("trunk", type=Path)
    run.add_argument("results", type=Path)
    run.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints go")
    run.add_argument("--only", choices=CONTESTANTS, nargs="+", default=list(CONTESTANTS))
    table = commands.add_parser("table", help="the comparison as a Markdown table")
    table.add_argument("results", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(make_table(arguments.results))
        return
    for name in arguments.only:
        run_one(name, arguments.data, arguments.trunk, arguments.runs / f"camvid-{name}", arguments.results / name)


def run_one(name: str, data: Path, trunk: Path, run: Path, kept: Path) -> None:
    """Train one network and measure its best validated model on the test images."""
    fusion, context = CONTESTANTS[name]
    switches = ["--model.fusion", fusion, "--model.context", context, "--model.pretrained", str(trunk)]
    started = time.monotonic()
    asymseg("train", str(data), "--config", RECIPE, *switches, "--out", str(run))
    minutes = (time.monotonic() - started) / 60
    (run / "run.json").write_text(
        json.dumps({"minutes": round(minutes, 1), "threads": os.environ.get("OMP_NUM_THREADS")})
    )
    keep(data, run, kept)


def keep(data: Path, run: Path, kept: Path) -> None:
    """Measure a run's best model on the test images and copy what may be passed on, without any picture."""
    asymseg("evaluate", str(run), str(data), "--split", "test", "--no-gallery", "--out", str(kept))
    for file in KEPT:
        shutil.copy(run / file, kept / file)


def asymseg(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "asymseg", *arguments], check=True)


def make_table(results: Path) -> str:
    """mIoU and the IoU of every class on the test images, a column per network."""
    found = {
        name: json.loads((results / name / "metrics.json").read_text())
        for name in CONTESTANTS
        if (results / name).is_dir()
    }
    facts = {name: json.loads((results / name / "run.json").read_text()) for name in found}
    steps = {name: yaml.safe_load((results / name / "config.yaml").read_text())["train"]["steps"] for name in found}

    def row(title: str, cells: list[str]) -> str:
        return f"| {title} | " + " | ".join(cells) + " |"

    lines = [row("test", list(found)), "| --- |" + " ---: |" * len(found)]
    lines.append(row("**mIoU**", [f"**{content['miou']:.3f}**" for content in found.values()]))
    for name in next(iter(found.values()))["classes"]:
        lines.append(row(name, [f"{content['classes'][name]['iou']:.3f}" for content in found.values()]))
    lines.append(row("pixel accuracy", [f"{content['pixel_accuracy']:.3f}" for content in found.values()]))
    lines.append(row("steps", [str(steps[name]) for name in found]))
    lines.append(row("minutes", [f"{facts[name]['minutes']:g}" for name in found]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
