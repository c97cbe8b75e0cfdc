"""A checkpoint of mmsegmentation brought over: read, predicted from, and turned into a model folder.

    python examples/from_mmsegmentation.py --checkpoint iter_80000.pth --out demo
    python examples/from_mmsegmentation.py --out demo

Without a checkpoint one is made first, of ANN over ResNet-50 with random weights and under mmsegmentation's names; then
the two networks are compared, which shows that nothing is lost on the way.
"""

import argparse
from pathlib import Path

import torch

import asymseg
from asymseg.data.sample import SAMPLE_CLASSES, make_scene
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo


def make_checkpoint(path: Path) -> asymseg.ANNNet:
    """Write a checkpoint as mmsegmentation would, and give the network whose weights are in it."""
    torch.manual_seed(0)
    network = asymseg.ANNNet(len(SAMPLE_CLASSES), "resnet50c", output_stride=8).eval()
    for block in (network.fusion, network.context):
        torch.nn.init.normal_(block.output.weight, std=0.05)  # away from the zeros of a fresh block
    info = ModelInfo(SAMPLE_CLASSES, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    asymseg.export_mmseg(network, info, path)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description="A checkpoint of mmsegmentation's, here.")
    parser.add_argument("--checkpoint", type=Path, help="a .pth; without, one is made")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.checkpoint or arguments.out / "ann.pth"
    original = None if arguments.checkpoint else make_checkpoint(checkpoint)

    predictor = asymseg.load(checkpoint, fold=False)
    print(f"{checkpoint}: {predictor.parameters:,} parameters, classes {', '.join(predictor.info.classes.names)}")
    if original is not None:
        images = torch.randn(1, 3, 65, 97)
        with torch.no_grad():
            before, after = original(images), predictor.network(images)
        print(
            f"largest difference of the logits: {float((before - after).abs().max() / before.abs().max()):.1e} of them"
        )
    result = predictor(make_scene(0)[0])
    result.overlay().save(arguments.out / "from-mmsegmentation.png")
    save_model(arguments.out / "model", predictor.network, predictor.info)
    print(f"asymseg predict {arguments.out / 'model'} IMAGES -o masks")


if __name__ == "__main__":
    main()
