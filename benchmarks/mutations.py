"""Damage and malice, at random and yet the same for the same seed: of bytes, of text, of what JSON holds."""

import copy
import json
import random
import struct
import zlib
from typing import Any

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 255, 256, 65535, 65536, 2**31, 2**63, 10**30, -(10**18), 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), "", " ", "0", "-1", "none", "nan", "\0", "\n", "\x1b[31m", "\ud800", "é" * 300),
    *("../../etc/passwd", "/dev/zero", "x" * 5000, [], {}, [[]], [None], {"": None}, [0] * 1000, [1, "a", None]),
    *([[1, 2], [3]], [1e308, -1e308, 1e308, 1e308, 0, 0], {"size": [2, 2], "counts": "00"}),
)
"""What JSON may hold where something else is expected."""

PARTS = (
    *(
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"',
        "'",
        "\\",
        "\n",
        "\t",
        "- ",
        "&a ",
        "*a",
        "<<: ",
        "!!python/object:os.system ",
        "? ",
    ),
    *(
        "<",
        ">",
        "</",
        "/>",
        "<!--",
        "]]>",
        "&lt;",
        "&x;",
        '<!DOCTYPE a [<!ENTITY x "y">]>',
        "null",
        "~",
        "0x",
        "0b",
        "1e999",
    ),
    *(
        "2001-99-99",
        "12:99:99",
        ".inf",
        "-",
        "%",
        "@",
        "`",
        "|",
        "\0",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x1b[2J",
        "9" * 5000,
    ),
    *("[" * 2000, "{" * 2000, "- " * 2000, '{"a":' * 2000, "<a>" * 2000, "a: {" * 50),
)
"""What JSON, YAML and XML give a meaning to."""


def changed(choose: random.Random, files: list[bytes]) -> bytes:
    """One of the files after one to six changes, most of them near its head."""
    data = bytearray(choose.choice(files))
    for _ in range(choose.randint(1, 6)):
        near = min(len(data), choose.choice((16, 64, 256, 10**6)))
        place = choose.randrange(near) if near else 0
        kind = choose.randrange(6)
        if kind == 0 and data:
            data[place] ^= 1 << choose.randrange(8)
        elif kind == 1 and data:
            data[place] = choose.randrange(256)
        elif kind == 2:
            form = choose.choice(("<H", ">H", "<I", ">I"))
            value = choose.choice(EXTREMES) & (0xFFFF if "H" in form else 0xFFFFFFFF)
            data[place : place + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 3:
            del data[place : place + choose.randint(1, 64)]
        elif kind == 4:
            other = choose.choice(files)
            start = choose.randrange(len(other))
            data[place:place] = other[start : start + choose.randint(1, 64)]
        elif choose.random() < 0.3:
            del data[choose.randrange(len(data) + 1) :]
    return bytes(data)


def changed_png(choose: random.Random, files: list[bytes]) -> bytes:
    """A changed PNG whose check sums are right again, so that more than its head is read."""
    start = b"\x89PNG\r\n\x1a\n"
    data = changed(choose, [file for file in files if file.startswith(start)])
    chunks, place = [start], len(start)
    while place + 8 <= len(data):
        length = min(int.from_bytes(data[place : place + 4], "big"), len(data) - place - 8)
        body = data[place + 4 : place + 8 + length]
        chunks.append(length.to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big"))
        place += length + 12
    return b"".join(chunks)


def changed_text(choose: random.Random, texts: list[bytes]) -> bytes:
    """One of the texts, in UTF-8, after one to four changes: pieces of syntax put in, pieces cut, doubled or moved."""
    text = choose.choice(texts).decode()
    for _ in range(choose.randint(1, 4)):
        place = choose.randrange(len(text) + 1)
        piece = text[place : place + choose.choice((1, 1, 4, 16, 64))]
        kind = choose.randrange(5)
        if kind < 2:
            text = text[:place] + choose.choice(PARTS) + text[place:]
        elif kind == 2:
            text = text[:place] + text[place + len(piece) :]
        elif kind == 3:
            text = text[:place] + piece * choose.choice((2, 3, 50)) + text[place:]
        else:
            other = choose.randrange(len(text) + 1)
            text = text[:other] + piece + text[other:]
    return text.encode("utf-8", "surrogatepass")


def changed_json(choose: random.Random, texts: list[bytes]) -> bytes:
    """One of the JSON texts with one to three of its values replaced, removed, renamed, doubled or nested."""
    content = json.loads(choose.choice(texts))
    for _ in range(choose.randint(1, 3)):
        places = list(_places(content))
        if not places:
            break
        holder, key = choose.choice(places)
        kind = choose.randrange(6)
        if kind < 2:
            holder[key] = copy.deepcopy(choose.choice(STRANGE))
        elif kind == 2 and isinstance(holder[key], int | float):
            holder[key] = choose.choice((-holder[key], holder[key] * 10**6, str(holder[key]), holder[key] + 0.5))
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder, dict):
            holder[choose.choice((f"{key}x", key.upper(), "", "__class__"))] = holder.pop(key)
        else:
            holder[key] = [copy.deepcopy(holder[key]) for _ in range(choose.choice((1, 2, 3)))]
    return json.dumps(content).encode()


def _places(content: Any) -> Any:
    """Every list and object within, with each of its keys."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])
