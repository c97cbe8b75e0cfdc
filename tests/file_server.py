"""A web server on this machine that serves one content and can be told to behave badly."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What it serves, how badly, and what it was asked."""

    address: str
    content: bytes
    etag: str = '"one"'
    takes_ranges: bool = True
    break_off_after: list[int] = field(default_factory=list)
    """For each of the next answers the bytes after which the connection is cut; 0 cuts at once."""
    claimed_length: int | None = None
    """What Content-Length says in place of the truth."""
    states_length: bool = True
    statuses: list[int] = field(default_factory=list)
    """For each of the next requests the refusal it gets."""
    redirect: str = ""
    wrong_range: bool = False
    """Whether it sends all of the content as the part that was asked for."""
    heeds_if_range: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path as asked for, and the Range header or ''."""


def _answer(handler: BaseHTTPRequestHandler, server: FileServer) -> None:
    asked = handler.headers.get("Range", "")
    server.requests.append((handler.path, asked))
    if server.statuses:
        handler.send_error(server.statuses.pop(0))
        return
    if server.redirect and not handler.path.startswith("/moved"):
        handler.send_response(302)
        handler.send_header("Location", server.redirect)
        handler.end_headers()
        return
    start = 0
    same = handler.headers.get("If-Range") in (None, server.etag) or not server.heeds_if_range
    if asked and server.takes_ranges and same:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if start >= len(server.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(server.content)}")
            handler.end_headers()
            return
        handler.send_response(206)
        start = 0 if server.wrong_range else start
        handler.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
    else:
        handler.send_response(200)
    body = server.content[start:]
    if server.etag:
        handler.send_header("ETag", server.etag)
    if server.states_length:
        handler.send_header("Content-Length", str(server.claimed_length or len(body)))
    handler.end_headers()
    handler.wfile.write(body[: server.break_off_after.pop(0)] if server.break_off_after else body)


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """A running server of this content, at every path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, server)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = FileServer(f"http://127.0.0.1:{listener.server_port}", content)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
