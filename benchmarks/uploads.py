"""Damaged and hostile uploads: is each of them either read or refused, and in what time and memory?

    OMP_NUM_THREADS=1 python benchmarks/uploads.py --inputs 20000 --out uploads.json

Small pictures in every format that the server takes are changed at random: bytes flipped, cut out, doubled, cut short,
numbers in heads set to extremes, parts of one file put into another. Each goes the way of an upload up to its pixels.
Whatever comes of it but pixels or a refusal would be a 500 of the server, and is counted. Prints the figures as JSON.
"""

import argparse
import json
import platform
import random
import resource
import time
import warnings
from collections import Counter
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
import tifffile
from mutations import changed
from PIL import Image

from asymseg.serving.refusals import Refusal
from asymseg.serving.room import Limits
from asymseg.serving.uploads import count_pixels, decode


def main() -> None:
    parser = argparse.ArgumentParser(description="Damaged and hostile uploads.")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    files, choose, limits = whole_files(), random.Random(arguments.seed), Limits()
    outcomes, faults, slowest = Counter[str](), list[str](), 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(arguments.inputs):
        data = changed(choose, files)
        began = time.perf_counter()
        try:
            count_pixels(data, limits.max_pixels)
            decode(data, 3)
            outcomes["read"] += 1
        except Refusal as refusal:
            outcomes[f"{refusal.status} {refusal.code}"] += 1
        except Exception as error:
            outcomes["fault"] += 1
            faults.append(f"{number}: {error!r}"[:200])
        slowest = max(slowest, time.perf_counter() - began)
    facts = {
        "inputs": arguments.inputs,
        "outcomes": dict(sorted(outcomes.items())),
        "faults": faults[:20],
        "slowest_seconds": round(slowest, 3),
        "memory_MiB": {
            "before": before // 1024,
            "most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        },
        "pillow": PIL.__version__,
        "tifffile": tifffile.__version__,
        "hardware": f"{platform.machine()} CPU, 1 thread",
        "date": date.today().isoformat(),
    }
    text = json.dumps(facts, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def whole_files() -> list[bytes]:
    """Small pictures in every format, with what makes each format hard: palettes, 16 bit, planes, pages, turns."""
    rng = np.random.default_rng(0)
    colour, grey = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), rng.integers(0, 256, (24, 32), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [saved(Image.fromarray(colour), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    files += [saved(Image.fromarray(grey), kind) for kind in ("PNG", "JPEG", "TIFF")]
    files += [saved(Image.fromarray(colour), kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    files += [saved(Image.fromarray(colour).quantize(16), kind) for kind in ("PNG", "BMP", "TIFF")]
    files += [
        saved(Image.fromarray(colour), "JPEG", progressive=True),
        saved(Image.fromarray(colour), "WEBP", lossless=True),
    ]
    files += [saved(Image.fromarray(colour), "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_deflate", "jpeg")]
    files += [saved(Image.fromarray(grey > 127), "PNG"), saved(Image.fromarray(colour).convert("CMYK"), "JPEG")]
    for array in (colour.astype(np.uint16) * 257, rng.random((24, 32, 3), np.float32), colour.transpose(2, 0, 1)):
        file = BytesIO()
        tifffile.imwrite(file, array, photometric="minisblack" if array.shape[0] == 3 else "rgb")
        files.append(file.getvalue())
    for array in (colour, grey, colour.astype(np.uint16), rng.random((24, 32, 3)), np.asfortranarray(colour)):
        file = BytesIO()
        np.save(file, array)
        files.append(file.getvalue())
    return files


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


if __name__ == "__main__":
    main()
