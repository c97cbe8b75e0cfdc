"""Serve models over HTTP until told to stop."""

import asyncio
import ctypes
import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from asymseg.errors import ConfigError
from asymseg.serving.app import make_app
from asymseg.serving.examples import Examples
from asymseg.serving.guard import Guard, read_keys
from asymseg.serving.loading import names_of
from asymseg.serving.room import Limits, Room
from asymseg.serving.service import Service

_CONNECTIONS = 1024
_ARENA_MAX = -8
"""The parameter of glibc's mallopt(3)."""
_TRIM_EVERY = 20.0
"""Seconds."""
_LAST_WORDS = 0.5
"""Seconds between the signal to stop and the end of listening, in which who comes is told so; and as many in which
those are told so who came just before that end."""


def serve(
    models: tuple[str, ...],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    keys: Path | None = None,
    names: tuple[str, ...] = (),
    examples: Path | None = None,
    limits: Limits | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish what was taken, and return.

    Args:
        models: What `asymseg.load` takes, or NAME= and that.
        host: The address to listen at.
        port: 0 is one that is free.
        device: Where the models run.
        keys: A file of keys, one a line; without it anybody who reaches the port may ask.
        names: Names of this server, beside localhost and its address, by which it may be asked.
        examples: A folder of pictures that the page offers; by default the built-in scenes.
        limits: How much is taken on.
        started: Told the address once requests are taken.

    Raises:
        AsymsegError: A model cannot be loaded, a file not be read, or the address not be used.
    """
    heap = _one_heap()
    limits = limits or Limits()
    known = () if keys is None else read_keys(keys)
    pictures, sources = Examples(examples), names_of(models)
    with _listen(host, port) as listener:  # before models are loaded, so that a fault is told at once
        service = Service(sources, device, limits)
        guard = Guard(
            make_app(service, pictures),
            keys=known,
            names=names,
            observe=service.metrics.observe,
            stopping=lambda: service.room.stopping,
        )
        config = uvicorn.Config(
            guard,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            http="h11",  # the strict one
            loop="asyncio",
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=int(2 * limits.timeout) + 5,
        )
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        _Server(config, service.room, heap, lambda: started(address)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends well on the first signal: for a moment it tells who comes that it stops, then it finishes what it took. A
    second signal ends it at once."""

    def __init__(
        self, config: uvicorn.Config, room: Room, heap: ctypes.CDLL | None, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.room, self.heap, self.tell = room, heap, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.trimming = asyncio.create_task(_trim(self.heap))
        if not self.should_exit:
            self.tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.started:  # nobody has been told to come
            self.should_exit = True
            return
        if self.room.stopping:  # leaving in order would take as long as the network has still to do
            print("ended at once; who waited got no answer", file=sys.stderr, flush=True)
            os._exit(128 + sig)
        self.room.stopping = True
        self.loop.call_soon_threadsafe(self.loop.call_later, _LAST_WORDS, self._listen_no_more)

    def _listen_no_more(self) -> None:
        for server in self.servers:
            server.close()
        self.loop.call_later(_LAST_WORDS, self._end)

    def _end(self) -> None:
        self.should_exit = True


def _one_heap() -> ctypes.CDLL | None:
    """The C library, where it is glibc, told that all threads allocate from one heap.

    By default each has one of its own, and keeps there for good whatever its largest images left in pieces: a server's
    memory then grows for hours.
    """
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    libc.mallopt(_ARENA_MAX, 1)
    return libc


async def _trim(heap: ctypes.CDLL | None) -> None:
    """Give pages between what is allocated back to the system, again and again; images of other sizes leave them."""
    while heap is not None:
        await asyncio.sleep(_TRIM_EVERY)
        await asyncio.to_thread(heap.malloc_trim, 0)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"port = {port}: give one from 0, which is any that is free, to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except OSError as error:
        raise ConfigError(
            f"{host}, port {port}: cannot listen there ({error}); choose another --host or --port"
        ) from None
