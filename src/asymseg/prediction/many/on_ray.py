"""Predict very many images on a Ray cluster, to the bytes that `files` writes: no image passes the driver.

The driver lists the images and hands out blocks of names. Each process of the cluster holds the model once; it reads,
predicts and writes the images of a block, and then adds the block to the manifest. What died is started again and its
blocks are done again; a block that keeps killing its process is tried image by image, so that one image is lost, not
the run.
"""

import json
import logging
import os
import secrets
import socket
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asymseg.errors import AsymsegError, ConfigError
from asymseg.prediction.device import Device
from asymseg.prediction.loading import Model, load, made_with, model_files
from asymseg.prediction.many.files import Outcome, Wanted, looking, predict_each, rest_of
from asymseg.prediction.many.manifest import Done, record
from asymseg.prediction.many.planning import Plan, plan_files
from asymseg.prediction.many.stores import Store

_BLOCK = 64
"""Most images that a process is given at once."""
_BLOCKS_EACH = 8
"""Least number of blocks for each process, as long as there are images: so that all end at about one time."""
_TRIES = 3
"""How often a block is begun, where each time the process dies."""
_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"}
_PATIENCE = 10.0
"""Seconds to wait for the first answer of a cluster."""
_STORE = 256 * 2**20
"""Bytes of shared memory of a cluster on this machine, beside the model: names alone pass through it."""


def predict_on_ray(
    model: Model,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    wanted: Wanted,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """What `predict_files` does with a manifest, on the cluster that RAY_ADDRESS names, or one started on this machine.

    Paths must lead to the same place on all machines; asymseg must be installed there. `workers` processes hold the
    model, by default one for each GPU or, where there are none, for each core. A process has one thread on CPUs.

    Raises what `predict_files` raises; ConfigError where Ray is missing or cannot be reached, or has no room for a
    process.
    """
    _import_ray()
    plan = _absolute(plan_files(inputs, out, overlay=wanted.overlay, probabilities=wanted.probabilities))
    rest, before = rest_of(plan, wanted, made_with(model))
    finished = 0

    def advance(images: int) -> None:
        nonlocal finished
        finished += images
        if progress is not None:
            progress(before + finished, len(plan.names))

    failed: dict[str, str] = {}
    if rest:
        files = {path.name: path.read_bytes() for path in model_files(model.source)}
        with _cluster(sum(map(len, files.values()))) as ray:
            count, gpus = _processes(ray, model.device, workers)
            told = (ray.put(files), model, replace(plan, names=()), wanted)
            pool = _Pool(told, count, gpus, advance)
            size = max(1, min(_BLOCK, len(rest) // (count * _BLOCKS_EACH)))
            failures, left = pool.predict([rest[first : first + size] for first in range(0, len(rest), size)])
            more, lost = pool.predict([[name] for name in left])
            failed = {**failures, **more, **{name: _lost(plan, name) for name in lost}}
            record(plan.out, [Done(name, failed[name]) for name in lost])
            advance(len(lost))
    masks = [plan.mask(name) for name in rest if name not in failed]
    written = [plan.out.place(mask) if plan.out.local is None else plan.out.local / mask for mask in masks]
    return Outcome(tuple(written), tuple(failed[name] for name in rest if name in failed), before)


@dataclass(frozen=True)
class _Pool:
    """The processes that hold the model, and what they are told."""

    told: tuple[Any, Model, Plan, Wanted]
    count: int
    gpus: int
    """Of each."""
    advance: Callable[[int], None]

    def predict(self, blocks: Sequence[Sequence[str]]) -> tuple[dict[str, str], list[str]]:
        """Which images failed and why, and those of blocks that were begun in vain.

        Raises AsymsegError where results cannot be written.
        """
        import ray.data

        failures: dict[str, str] = {}
        left = set(range(len(blocks)))
        if not blocks:
            return failures, []
        rows = [{"block": number, "names": json.dumps(list(names))} for number, names in enumerate(blocks)]
        tries = ray.remote(num_cpus=0)(_Tries).remote()
        pool = ray.data.ActorPoolStrategy(size=min(self.count, len(blocks)), max_tasks_in_flight_per_actor=2)
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Process,
            fn_constructor_args=(*self.told, tries),
            batch_size=1,
            compute=pool,
            num_cpus=1,
            num_gpus=self.gpus,
        )
        done.context.enable_progress_bars = False
        for row in done.iter_rows():
            if row["bug"]:
                raise RuntimeError(f"in a process of the cluster:\n{row['bug']}")
            if row["refused"]:
                raise AsymsegError(row["refused"])
            if row["failures"]:
                left.discard(int(row["block"]))
                failures |= json.loads(row["failures"])
                self.advance(len(blocks[int(row["block"])]))
        return failures, [name for number in sorted(left) for name in blocks[number]]


class _Tries:
    """How often each block was begun, counted in a process of its own, which outlives those that die of one."""

    def __init__(self) -> None:
        self.counts = Counter[int]()

    def begin(self, block: int) -> int:
        self.counts[block] += 1
        return self.counts[block]


class _Process:
    """What holds the model in a process of the cluster."""

    def __init__(self, files: Any, model: Model, plan: Plan, wanted: Wanted, tries: Any) -> None:
        import ray

        self.plan, self.wanted = plan, wanted
        self.begin: Callable[[int], int] = lambda block: ray.get(tries.begin.remote(block))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            contents: dict[str, bytes] = ray.get(files)
            for name, content in contents.items():
                Path(folder, name).write_bytes(content)
            source = Path(folder) if len(contents) > 1 else Path(folder, *contents)
            predictor = load(source, model.device, precision=model.precision, compile=model.compile, fold=model.fold)
        predictor = predictor.seeing(**asdict(model.seeing))
        self.look, self.channels = looking(predictor, wanted), len(predictor.info.mean)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """What became of one block: its failures as JSON, nothing where it was begun too often."""
        block = int(batch["block"][0])
        failures, refused, bug = "", "", ""
        try:
            if self.begin(block) <= _TRIES:
                names = json.loads(batch["names"][0])
                finished = list(predict_each(self.look, self.plan, names, self.wanted, self.channels))
                record(self.plan.out, finished)
                failures = json.dumps({done.image: done.failed for done in finished if done.failed})
        except AsymsegError as error:
            refused = str(error)
        except Exception:  # the driver raises it again
            bug = traceback.format_exc()
        return {"block": [block], "failures": [failures], "refused": [refused], "bug": [bug]}


def _lost(plan: Plan, name: str) -> str:
    return (
        f"{plan.source.place(name)}: each process that was to predict it died; it may be too large for the memory of a "
        "machine, or damaged: make it smaller, or remove it"
    )


def _absolute(plan: Plan) -> Plan:
    """The same plan for processes that began elsewhere."""
    source, out = (
        store if store.local is None else Store(str(store.local.absolute())) for store in (plan.source, plan.out)
    )
    return replace(plan, source=source, out=out)


@contextmanager
def _cluster(model_bytes: int) -> Iterator[Any]:
    """Ray, connected to the cluster that the environment names, or to one of this machine until the block ends."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    token = "RAY_AUTH_TOKEN" if address == "local" and not os.environ.keys() & _TOKENS else None
    own = {"include_dashboard": False, "object_store_memory": _STORE + 2 * model_bytes}
    if token:
        os.environ[token] = secrets.token_hex(32)  # of this cluster alone; Ray would leave one in the user's folder
    try:
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **(own if address == "local" else {}))
        except (OSError, ray.exceptions.AuthenticationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"Ray at {address} cannot be reached ({reason}); mend RAY_ADDRESS, or unset it") from None
        yield ray
    finally:
        ray.shutdown()
        if token:
            os.environ.pop(token, None)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at an address with a port; Ray would try for many minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), _PATIENCE).close()


def _processes(ray: Any, device: Device, workers: int | None) -> tuple[int, int]:
    """How many processes hold the model, and how many GPUs each takes. Raises ConfigError."""
    there = ray.cluster_resources()
    kind = "GPU" if there.get("GPU", 0) >= 1 and device != "cpu" else "CPU"
    most = int(there.get(kind, 0))
    count = most if workers is None else workers
    if not 1 <= count <= most:
        raise ConfigError(f"workers = {count}, and the cluster has room for 1 to {most}, one for each {kind}")
    return count, int(kind == "GPU")


def _import_ray() -> Any:
    """Ray, which is told to keep quiet and to tell nobody. Raises AsymsegError where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise AsymsegError('Ray is missing; pip install "asymseg[ray]"') from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray
