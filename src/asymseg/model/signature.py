"""What goes into an exported file and what comes out of it, as the file itself says. Needs no torch."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from asymseg.errors import CheckpointError

KEY = "asymseg"
"""Under this name an ONNX file's metadata hold classes, preprocessing, origin and proof, as JSON."""
INPUT = "image"

Output = Literal["logits", "probabilities", "class_map"]


@dataclass(frozen=True)
class Signature:
    """What goes into an exported file and what comes out of it."""

    output: Output = "logits"
    """Logits or probabilities B n H W in float32, or class ids B H W as bytes."""
    from_bytes: bool = False
    """Whether it takes RGB bytes B C H W and normalises them itself; otherwise it takes normalised numbers."""
    size: tuple[int, int] | None = None
    """Height and width, where only one size is to be taken; None takes any."""
    half: bool = False
    """Whether it computes in float16; its input and output stay as they are."""

    @classmethod
    def from_description(cls, content: dict[str, Any], where: str) -> "Signature":
        """Read from what an exported file says of itself; `where` names it. Raises CheckpointError."""
        try:
            told = content["signature"]
            size = None if told["size"] is None else (int(told["size"][0]), int(told["size"][1]))
            signature = cls(told["output"], told["from_bytes"], size, told["half"])
            if signature.output not in get_args(Output) or not {signature.from_bytes, signature.half} <= {True, False}:
                raise ValueError
            return signature
        except (KeyError, TypeError, IndexError, ValueError):
            raise CheckpointError(f"{where}: does not say what it takes and gives; export the model again") from None
