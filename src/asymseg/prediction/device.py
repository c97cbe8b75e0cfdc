"""Where and in what arithmetic a network runs: the words for it."""

from typing import Literal

Device = Literal["auto", "cpu", "cuda", "mps"] | str
Precision = Literal["auto", "fp32", "bf16", "fp16"]
