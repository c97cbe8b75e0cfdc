"""ONNX files opened by onnxruntime, or a line that says why not."""

import os
from pathlib import Path
from typing import Any

from asymseg.errors import CheckpointError, ConfigError, ExportError
from asymseg.prediction.device import Device


def import_onnxruntime() -> Any:
    """The package, kept from telling its makers that it is used. Raises ExportError where it is missing.

    Its releases of today leave a number for this machine in the user's folder and send events to a server, by a library
    of their own, from the moment they are loaded; unless this variable is set by then. Who wants that sets it to 0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise ExportError('ONNX files need onnxruntime; pip install "asymseg[export]"') from None
    if os.environ["ORT_DISABLE_TELEMETRY"] != "0":
        onnxruntime.disable_telemetry_events()  # where somebody else has loaded it before us
    return onnxruntime


def open_session(path: Path, device: Device) -> Any:
    """An ONNX file, ready to run; auto is CUDA where this onnxruntime has it.

    It keeps to the threads that OMP_NUM_THREADS allows, as torch does; by itself onnxruntime would take all cores.

    Raises CheckpointError for a file that is damaged or not there, ConfigError for a device that is not there, and
    ExportError where onnxruntime is missing.
    """
    onnxruntime = import_onnxruntime()
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device = {device!r} is none that ONNX files run on; try auto, cpu or cuda")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; asymseg export writes them")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ConfigError("device = 'cuda' cannot be used here: this onnxruntime has no CUDA; try auto or cpu")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if has_cuda and device != "cpu" else None
    options, threads = onnxruntime.SessionOptions(), os.environ.get("OMP_NUM_THREADS", "")
    options.log_severity_level = 3  # it warns of each kind of GPU that is not there
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0  # 0 is onnxruntime's own choice
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers or ["CPUExecutionProvider"])
    except Exception as error:  # it has a kind of error for each way in which a file can be damaged
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not readable by onnxruntime ({reason}); export it again") from None
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":  # it falls back by itself
        raise ConfigError(
            "device = 'cuda' cannot be used here: onnxruntime could not load its CUDA libraries; try auto or cpu"
        )
    return session
