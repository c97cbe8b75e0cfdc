"""A server under load: is every answer the one that is given offline, how fast, in how much memory, and is it stopped
without loss?

    OMP_NUM_THREADS=1 python benchmarks/serving.py MODEL --clients 32 --seconds 60 --out serving.json

Clients on this machine ask one `asymseg serve` again and again for the masks of made-up pictures of mixed sizes; one
request in twenty is bad in one of several ways. Each mask is compared with that of the predictor without a server: it
must be the same, or differ in pixels alone whose two best classes are closer than 1e-4. Then the same for batches of
one image, and a stop in the middle of the load. Prints the figures as JSON, and writes them to --out.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

import asymseg

BAD_SHARE, TIE = 0.05, 1e-4
IDLE = 45.0
"""Seconds of rest before the memory is looked at for the last time."""


@dataclass(frozen=True)
class Question:
    """A body, and what must come of it: the status, and where that is 200, the mask and where it may differ."""

    body: bytes
    status: int
    mask: np.ndarray | None = None
    ties: np.ndarray | None = None


@dataclass
class Tally:
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    tied_pixels: int = 0
    unlike: int = 0
    """Answers with another status than their question must have."""
    lost: int = 0
    """Requests whose connection was taken and that got no answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A server under load.")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--images", type=int, default=24, help="different pictures")
    parser.add_argument("--sizes", default="96x192,128x128,120x160,64x96", help="their heights and widths")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sizes = [tuple(int(side) for side in size.split("x")) for size in arguments.sizes.split(",")]
    questions = make_questions(arguments.model, sizes, arguments.images)
    facts: dict[str, Any] = {
        "network": arguments.model if "/" not in arguments.model else Path(arguments.model).resolve().parts[-2],
        "clients": arguments.clients,
        "sizes": arguments.sizes,
        "bad_share": BAD_SHARE,
        "together": under_load(arguments, questions, batch=8, stop=False),
        "one_by_one": under_load(arguments, questions, batch=1, stop=False),
        "stopped": under_load(arguments, questions, batch=8, stop=True),
        "hardware": f"{platform.machine()} CPU, {psutil.cpu_count()} cores, {torch.get_num_threads()} thread for torch",
        "load_average_before": [round(load, 1) for load in os.getloadavg()],
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    facts["throughput_ratio"] = round(
        facts["together"]["answers_per_second"] / facts["one_by_one"]["answers_per_second"], 2
    )
    text = json.dumps(facts, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def make_questions(model: str, sizes: list[tuple[int, ...]], count: int) -> list[Question]:
    """Pictures with their masks as the predictor alone gives them, and what is none."""
    predictor, rng = asymseg.load(model, "cpu"), np.random.default_rng(0)
    questions = []
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
        picture = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
        file = BytesIO()
        Image.fromarray(picture).save(file, format=("PNG", "BMP", "WEBP", "TIFF")[number % 3], lossless=True)
        result = predictor(picture)
        best = np.sort(result.probabilities, axis=0)
        questions.append(Question(file.getvalue(), 200, result.mask, best[-1] - best[-2] < TIE))
    good = questions[0].body
    bad = [(b"", 400), (b"no image", 400), (good[: len(good) // 2], 400), (b"\x93NUMPY\x01\x00v\x00" + bytes(200), 400)]
    huge = BytesIO()
    Image.new("1", (60_000, 5_000)).save(huge, format="PNG")
    bad.append((huge.getvalue(), 413))
    questions += [Question(body, status) for body, status in bad]
    return questions


def under_load(arguments: argparse.Namespace, questions: list[Question], *, batch: int, stop: bool) -> dict[str, Any]:
    """The figures of one server from its start to its end."""
    command = [sys.executable, "-m", "asymseg", "serve", arguments.model, "--port", "0", "--device", "cpu"]
    process = subprocess.Popen([*command, "--batch", str(batch)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = process.stderr.readline().split()[2]
    try:
        tally, memory, numbers, ended = asyncio.run(load(arguments, questions, address, process, stop))
    finally:
        if not stop:  # it was told already, and a second signal would end it at once
            process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    seconds, loaded = sorted(tally.seconds), memory if stop else memory[:-1]
    facts: dict[str, Any] = {
        "answers": dict(sorted(tally.statuses.items())),
        "wrong_masks": tally.wrong,
        "pixels_that_differ_in_a_tie": tally.tied_pixels,
        "unexpected_statuses": tally.unlike,
        "accepted_and_lost": tally.lost,
        "exit_code": code,
        "log": process.stderr.read().strip()[:500],
        "seconds": round(ended, 1),
        "answers_per_second": round(tally.statuses["200"] / ended, 1),
        "latency_seconds": {
            name: round(seconds[int(share * (len(seconds) - 1))], 3)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "memory_MiB_by_tenths": [round(float(np.mean(part))) for part in np.array_split(loaded, 10)],
        "memory_MiB_at_rest_afterwards": None if stop else round(memory[-1]),
    }
    if numbers:
        facts["images_per_batch"] = round(numbers, 2)
    return facts


async def load(
    arguments: argparse.Namespace, questions: list[Question], address: str, process: subprocess.Popen[str], stop: bool
) -> tuple[Tally, list[float], float, float]:
    tally, memory, server = Tally(), list[float](), psutil.Process(process.pid)
    began = time.monotonic()
    end = began + (arguments.seconds / 3 if stop else arguments.seconds)
    numbers = 0.0

    async def watch() -> None:
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            memory.append(server.memory_info().rss / 2**20)
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=120.0, limits=limits) as client:
        until = end + 60 if stop else end
        clients = [asyncio.create_task(ask(client, questions, tally, until, seed)) for seed in range(arguments.clients)]
        if stop:
            await asyncio.sleep(end - time.monotonic())
            process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        ended = time.monotonic() - began
        if not stop:
            numbers = images_per_batch((await client.get("/metrics")).text)
    watching.cancel()
    if not stop:
        await asyncio.sleep(IDLE)
        memory.append(server.memory_info().rss / 2**20)
    return tally, memory, numbers, ended


def images_per_batch(metrics: str) -> float:
    """From the server's own numbers."""
    values = {
        name.partition("{")[0]: float(value) for name, value in re.findall(r"^(asymseg_\S+) (\S+)$", metrics, re.M)
    }
    return values["asymseg_batch_images_sum"] / max(values["asymseg_batch_images_count"], 1)


async def ask(client: httpx.AsyncClient, questions: list[Question], tally: Tally, until: float, seed: int) -> None:
    """One client, which asks, waits for the answer, checks it and asks again until the time or the server is over."""
    choose = random.Random(seed)
    good, bad = [q for q in questions if q.status == 200], [q for q in questions if q.status != 200]
    while time.monotonic() < until:
        question = choose.choice(bad if choose.random() < BAD_SHARE else good)
        began = time.monotonic()
        try:
            answer = await client.post("/v1/predict?output=mask", content=question.body)
        except httpx.ConnectError:
            return
        except httpx.TransportError as error:
            tally.statuses[type(error).__name__] += 1
            tally.lost += 1
            return
        tally.statuses[str(answer.status_code)] += 1
        if answer.status_code == 503:
            if answer.json()["error"]["code"] == "stopping":
                return
            await asyncio.sleep(float(answer.headers["retry-after"]))
            continue
        tally.unlike += answer.status_code != question.status
        if answer.status_code == 200 and question.mask is not None:
            tally.seconds.append(time.monotonic() - began)
            with Image.open(BytesIO(answer.content)) as opened:
                differs = np.array(opened) != question.mask
            tally.wrong += bool((differs & ~question.ties).any())
            tally.tied_pixels += int(differs.sum())


if __name__ == "__main__":
    main()
