"""How much the evaluation form and the default execution change a score: the same model measured plain and folded.

    python benchmarks/folding_accuracy.py MODEL DATA [--split test]

Prints both mIoUs, their difference in points (hundredths of mIoU) and how many pixels got another class.
"""

import argparse
from pathlib import Path

import asymseg
from asymseg.data.dataset import open_dataset
from asymseg.data.loader import read_pair


def main() -> None:
    parser = argparse.ArgumentParser(description="A model measured plain and folded.")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    plain = asymseg.load(arguments.model, precision="fp32", fold=False)
    folded = asymseg.load(arguments.model)
    dataset = open_dataset(arguments.data, classes=plain.info.classes)
    scores = {
        name: asymseg.evaluate(predictor, dataset, arguments.split).scores.miou
        for name, predictor in (("plain float32", plain), ("default", folded))
    }
    other = pixels = 0
    for pair in dataset.splits[arguments.split]:
        image, _ = read_pair(pair, dataset.classes, len(plain.info.mean))
        other += int((plain.class_map(image) != folded.class_map(image)).sum())
        pixels += image.shape[1] * image.shape[2]
    for name, miou in scores.items():
        print(f"{name}: mIoU {100 * miou:.4f}")
    print(f"difference: {100 * (scores['default'] - scores['plain float32']):+.5f} points")
    print(f"pixels of another class: {other} of {pixels}")


if __name__ == "__main__":
    main()
