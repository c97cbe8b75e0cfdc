"""Imported by every Python process that has this folder on its path: notes and refuses all that would ask the network.

What is asked for is written to the file that ASKED names, with who asked. With LOOPBACK set, this machine's own
addresses may be asked for and listened on. Sockets of one machine (AF_UNIX), by which processes talk to their workers,
are free.
"""

import os
import socket
import sys
import traceback
from typing import Any

INTERNET = (socket.AF_INET, socket.AF_INET6)
NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
OWN = ("127.0.0.1", "::1", "localhost", None, "")


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    own = "LOOPBACK" in os.environ
    if event == "socket.__new__":
        asks = arguments[1] in INTERNET and not own
    elif event in NAMES:
        host = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
        asks = not (own and host in OWN)
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        place = arguments[1]
        internet = arguments[0].family in INTERNET and place is not None
        asks = internet and not (own and place[0] in OWN)
    else:
        return
    if asks:
        callers = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[-2:-8:-1])
        with open(os.environ["ASKED"], "a", encoding="utf-8") as notes:
            notes.write(f"{event} {arguments[1:]!r} by {callers}\n")
        raise PermissionError(f"{event}: the network is cut")


sys.addaudithook(refuse)
