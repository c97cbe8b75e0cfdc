"""Serve models over HTTP."""

from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from asymseg.cli.terminal import make_console
from asymseg.errors import AsymsegError

_NEEDS = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
_NEEDS |= {"prometheus_client": "prometheus-client"}


def serve(
    models: Annotated[list[str], Parameter(negative=())],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    keys: Path | None = None,
    names: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    examples: Path | None = None,
    max_bytes: int = 64 * 2**20,
    max_pixels: int = 20_000_000,
    queue: int = 64,
    batch: int = 8,
    timeout: float = 60.0,
) -> None:
    """Serve models over HTTP: a web page for people, and an API for programs.

    Nobody but this machine can reach it unless --host says otherwise. GET /openapi.json describes the API. A model
    whose folder or file is replaced is taken anew. SIGTERM or Ctrl-C finishes what was taken and ends.

    Parameters
    ----------
    models
        Model folders, files NAME.onnx, names of `asymseg models` or hub ids; as NAME=MODEL to name them yourself.
    host
        The address to listen at; 0.0.0.0 is all of this machine. Then give --keys, or set something in front.
    port
        0 is one that is free.
    device
        auto, cpu, cuda or mps.
    keys
        A file of keys, one a line; requests then need one as Authorization: Bearer KEY, or X-API-Key: KEY.
    names
        Names beside localhost by which this server is asked, such as seg.example.org.
    examples
        A folder of pictures that the page offers; by default the built-in scenes.
    max_bytes
        Of an upload.
    max_pixels
        Of an image, told from its head before it is decoded.
    queue
        Requests that are in work or wait; more are told to come back.
    batch
        Images of one size that go through the network together, at most.
    timeout
        Seconds for an upload, and as many for its answer.
    """
    missing = [package for module, package in _NEEDS.items() if find_spec(module) is None]
    if missing:
        raise AsymsegError(f'serving needs {", ".join(missing)}: pip install "asymseg[serve]"')

    from asymseg.serving.room import Limits
    from asymseg.serving.serve import serve as run

    console = make_console()
    if not _is_this_machine(host) and keys is None:
        console.print(f"warning: anybody who reaches {host} may ask; give --keys FILE", markup=False, highlight=False)

    def started(address: str) -> None:
        console.print(f"serving at {address}  (Ctrl-C ends it)", markup=False, highlight=False)

    run(
        tuple(models),
        host=host,
        port=port,
        device=device,
        keys=keys,
        names=names,
        examples=examples,
        limits=Limits(max_bytes=max_bytes, max_pixels=max_pixels, queue=queue, batch=batch, timeout=timeout),
        started=started,
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
