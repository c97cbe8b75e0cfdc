"""For all tests: shapes and types of every call are checked, torch keeps to one thread, nothing asks the network."""

import os
from collections.abc import Iterator

# Before huggingface_hub is imported, which reads it once: a test that wants a download fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"

# Before onnxruntime is loaded, by us or by a test: its releases send events to their makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import accelerate  # noqa: F401  # before the hook, under which Python compiles anew what only checked modules import
import beartype  # noqa: F401
import jaxtyping
import pydantic  # noqa: F401
import pytest
import tensorboard.summary  # noqa: F401
import timm  # noqa: F401
import torch

# Before asymseg is imported: what is already loaded goes unchecked. config.py is left out, for pydantic checks it.
STAGES = ("blocks", "model", "data", "prediction", "evaluation", "training", "benchmarking", "exporting", "serving")
jaxtyping.install_import_hook([f"asymseg.{stage}" for stage in STAGES], "shape_checker.check")

torch.set_num_threads(1)

# Before anything is exported: autograd starts threads where it first runs after that, and then no test could fork.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """Turn the checks off where torch.export or torch.compile must see through the calls."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
