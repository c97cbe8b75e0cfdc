"""A result in the forms in which it is kept and sent: mask, overlay, probabilities. Needs no torch."""

from io import BytesIO

import numpy as np
from jaxtyping import Float

from asymseg.classes import Classes
from asymseg.data.pixels import mask_picture
from asymseg.prediction.result import Result

_QUALITY = 90
"""Of the JPEG files of overlays."""


def mask_file(result: Result) -> bytes:
    """The class ids as a palette PNG."""
    file = BytesIO()
    mask_picture(result.mask, result.classes).save(file, format="PNG")
    return file.getvalue()


def overlay_file(result: Result, opacity: float = 0.5) -> bytes:
    """The image under its classes' colours, as a JPEG."""
    file = BytesIO()
    result.overlay(opacity).save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()


def shares_file(probabilities: Float[np.ndarray, "n h w"], classes: Classes) -> bytes:
    """`probabilities` as float16 and the names of the `classes`, as an NPZ file."""
    file = BytesIO()
    np.savez_compressed(file, probabilities=probabilities.astype(np.float16), classes=np.array(classes.names))
    return file.getvalue()
