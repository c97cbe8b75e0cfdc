"""What stands before the application: who may ask, from where, and the headers of every answer."""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asymseg.errors import ConfigError
from asymseg.serving.refusals import Refusal

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer: a page that loads nothing from elsewhere and stands in no other, and nothing is kept by the way."""

_LAST = {"connection": "close"}
_HEARD_OUT = 5.0
"""Seconds for the rest of a body that is refused while its connection ends."""

_SHORTEST_KEY = 16
_OPEN = ("/", "/livez", "/readyz")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LOCAL_NAMES = ("localhost",)

Observe = Callable[[str, str, int, float], None]
"""Told of each answer: the route, the method, the status, the seconds."""


class Guard:
    """An application that only those reach who may.

    Args:
        app: What answers.
        keys: Without one, anybody who reaches the port may ask.
        names: Names of this server beside `localhost`, its address and any other number. A page elsewhere whose name
            was made to point here (DNS rebinding) comes with its own name, and is refused.
        observe: Told of each answer.
        stopping: Whether the server is about to end. Connections then end with their answers, lest a client sends its
            next request into one that closes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        observe: Observe | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.observe, self.stopping = app, observe, stopping
        self.keys = tuple(hashlib.sha256(key.encode()).digest() for key in keys)
        self.names = {name.lower() for name in (*_LOCAL_NAMES, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        began, status, heard = time.perf_counter(), 500, False

        async def hear() -> Message:
            nonlocal heard
            message = await receive()
            heard = not message.get("more_body", False)
            return message

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, last = message["status"], self.stopping()
                if last and not heard:
                    await _hear_out(hear)
                MutableHeaders(scope=message).update(HEADERS | (_LAST if last else {}))
            await send(message)

        try:
            try:
                self.check(scope)
            except Refusal as refusal:
                await _answer(refusal, send_safely)
            else:
                await self.app(scope, hear, send_safely)
        finally:
            if self.observe is not None:
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"  # clients may make up any word
                self.observe(route, method, status, time.perf_counter() - began)

    def check(self, scope: Scope) -> None:
        """Raises Refusal."""
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refusal(
                403, "wrong_host", "the request names another server as its host; start this one with --names NAME"
            )
        site = headers.get("sec-fetch-site", "none")
        following_a_link = path == "/" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if foreign or (site not in ("same-origin", "none") and not following_a_link):
            raise Refusal(403, "cross_site", "a page of another site asks, and none may; open this server's own page")
        if self.keys and path not in _OPEN and not path.startswith("/page/") and not self._knows(headers):
            raise Refusal(401, "no_key", "give a key of this server as Authorization: Bearer KEY or X-API-Key: KEY")

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() in self.names
        return True

    def _knows(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(given.encode()).digest()
        return sum(hmac.compare_digest(digest, key) for key in self.keys) > 0  # all of them, whichever fits


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; lines that are empty or begin with # aside. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as text ({error}); give a file with one key a line") from None
    keys = []
    for number, line in enumerate(lines, start=1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < _SHORTEST_KEY or not key.isascii() or len(key.split()) > 1:
            raise ConfigError(
                f"{path}, line {number}: a key has at least {_SHORTEST_KEY} letters and digits and no blanks; "
                "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
            )
        keys.append(key)
    if not keys:
        raise ConfigError(f"{path}: holds no key; write one a line, or leave --keys out")
    return tuple(keys)


async def _hear_out(hear: Receive) -> None:
    """Take the rest of a body from the wire: one that closes on bytes unread resets, and its answer is lost."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_OUT):
            while (await hear()).get("more_body", False):
                pass


async def _answer(refusal: Refusal, send: Send) -> None:
    body = json.dumps(refusal.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    start: dict[str, Any] = {"type": "http.response.start", "status": refusal.status}
    await send({**start, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": body})
