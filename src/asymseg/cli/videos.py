"""Predicting a video, as `predict` does it for one file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asymseg.cli.terminal import PARTLY_FAILED, make_console, progress_bar, say_failure, warnings_in_a_line

if TYPE_CHECKING:
    from asymseg.prediction.result import AnyPredictor


def predict_one_video(
    predictor: "AnyPredictor", source: Path, out: Path, *, opacity: float, masks: Path | None
) -> None:
    """Predict a video into a file, or into a folder as NAME_overlay.mp4, and say what was written."""
    from asymseg.prediction.video import VIDEO_SUFFIXES, write_video

    console = make_console()
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        out = out / f"{source.stem}_overlay.mp4"
    with progress_bar(console, "predict", "frames") as advance, warnings_in_a_line(console):
        outcome = write_video(predictor, source, out, opacity=opacity, masks=masks, progress=advance)
    if outcome.failure:
        say_failure(outcome.failure, console)
    console.print(f"{outcome.frames} frames predicted; video in {outcome.path}", markup=False, highlight=False)
    if outcome.failure:
        sys.exit(PARTLY_FAILED)
