"""Predicting a raster, as `predict` does it for one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asymseg.cli.terminal import make_console, progress_bar, warnings_in_a_line

if TYPE_CHECKING:
    from asymseg.prediction.onnx.runtime import OnnxPredictor
    from asymseg.prediction.predict import Predictor


def predict_one_raster(
    predictor: "Predictor | OnnxPredictor",
    source: Path,
    out: Path,
    *,
    tile: int,
    overlap: int | None,
    context: Literal["tile", "image"],
    bands: list[int] | None,
    probabilities: bool,
    polygons: Path | None,
) -> None:
    """Predict a raster into a file, or into a folder under its own name, and say what was written."""
    from asymseg.prediction.raster.predict import predict_raster

    console = make_console()
    if out.suffix.lower() not in (".tif", ".tiff"):
        out = out / f"{source.stem}.tif"
    with progress_bar(console, "predict", "tiles", waits=True) as advance, warnings_in_a_line(console):
        outcome = predict_raster(
            predictor,
            source,
            out,
            tile=tile,
            overlap=overlap,
            context=context,
            bands=bands,
            probabilities=probabilities,
            polygons=polygons,
            progress=advance,
            say=console.print,
        )
    height, width = outcome.size
    console.print(f"{width} x {height} pixels predicted; classes in {outcome.path}", markup=False, highlight=False)
    if outcome.regions is not None:
        console.print(f"{outcome.regions} regions in {polygons}", markup=False, highlight=False)
