"""Time, memory and work of calls: each measured exactly where that can be done, and never by looking on from outside.

The parts:

    interleaved_seconds   A, B, C, A, B, C, ...: what slows the machine down slows all of them
    memory_of             every allocation of a call, from torch's own allocator
    saved_bytes           what autograd keeps between forward and backward
    multiply_adds         counted by torch.utils.flop_counter
    relative_error        of outputs that should be the same
"""

import gc
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# Before the profiler is first used: it announces every start and stop on standard error.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

Call = Callable[[], Sequence[Tensor]]
"""One run of something; gives its outputs."""


def interleaved_seconds(
    calls: Sequence[Call], rounds: int, device: torch.device, before_round: Callable[[int], None]
) -> list[tuple[float, ...]]:
    """Seconds of each call in each round; in a round every call has its turn, in order."""
    samples: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        before_round(number)
        for call, taken in zip(calls, samples, strict=True):
            taken.append(seconds_of(call, device))
    return [tuple(taken) for taken in samples]


def seconds_of(call: Call, device: torch.device) -> float:
    """How long one call takes until its outputs are there; freeing them is not counted."""
    _wait(device)
    started = time.perf_counter()
    outputs = call()
    _wait(device)
    seconds = time.perf_counter() - started
    del outputs
    return seconds


def rounds_within(seconds: float, one_round: float, least: int, most: int) -> int:
    """How many rounds fit into a time, between bounds."""
    return max(least, min(most, int(seconds / one_round)))


@dataclass(frozen=True)
class Memory:
    """What a call takes beyond its inputs and outputs."""

    peak: int
    """The most that it holds at one time."""
    kept: int
    """What is still there when it is done."""


def memory_of(call: Call, device: torch.device) -> tuple[Memory | None, Sequence[Tensor]]:
    """The memory of a call beyond its inputs and outputs, and the outputs.

    The peak is the highest sum of all that it allocated and had not yet freed, less the size of the outputs: how much
    more must be free than inputs and outputs take. Seen is every block of torch's allocator, those inside operations
    and of oneDNN's reordered tensors included; what a library such as MKL takes for itself is not. None on devices that
    do not count.
    """
    if device.type == "cuda":
        gc.collect()  # garbage freed within the call would hide as much of what it takes
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        outputs = call()
        torch.cuda.synchronize(device)
        peak, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
        known = before + _storage_bytes(outputs)
        return Memory(peak - known, after - known), outputs
    if device.type != "cpu":
        return None, call()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        outputs = call()
    highest, last = _sums(_allocations(profile))
    known = _storage_bytes(outputs)
    return Memory(highest - known, last - known), outputs


def _allocations(profile: torch.profiler.profile) -> list[dict[str, Any]]:
    """Each allocation (Bytes above 0) and release of a profile in order, with its address."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    found = [event for event in events if event.get("name") == "[memory]"]
    return [event["args"] for event in sorted(found, key=lambda event: float(event["ts"]))]


def _sums(allocations: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """The highest and the last sum of the blocks that live."""
    live: dict[int, int] = {}
    highest = now = 0
    for event in allocations:
        if event["Bytes"] > 0:
            live[event["Addr"]] = event["Bytes"]
            now += event["Bytes"]
            highest = max(highest, now)
        else:  # a block from before the call is none of its own
            now -= live.pop(event["Addr"], 0)
    return highest, now


def saved_bytes(forward: Callable[[], object], not_counted: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps of a forward pass for its backward pass: each storage whole and once.

    `not_counted` are tensors that are there anyway, such as parameters.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in not_counted}
    kept: dict[int, Tensor] = {}  # holding them keeps an address from being given out twice

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return _storage_bytes(kept.values())


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def multiply_adds(call: Call) -> int:
    """Products of convolutions, matrix products and attention in a call, each with its sum; nothing else is counted."""
    # The counter knows operations by name, and would pass over these: the in-place one that our blocks use, and, in
    # torch 2.8, attention on a CPU.
    more = {
        torch.ops.aten.baddbmm_: _in_place_product,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    }
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        call()
    return int(counter.get_total_flops()) // 2


def _in_place_product(
    total: Sequence[int], left: Sequence[int], right: Sequence[int], *, out_shape: object, beta: int = 1, alpha: int = 1
) -> int:
    """Operations of total += left right, from the shapes B N M, B N K and B K M."""
    return 2 * math.prod(left) * right[2]


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    """Operations of the weights and of the sum that they give, from the shapes B H N D, B H M D and B H M V."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def relative_error(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, for each tensor relative to its own largest entry; nan where one is nan.

    A tensor whose entries are all below a hundredth of the largest of all is measured against that hundredth: the
    gradient of a bias before BatchNorm is zero in exact arithmetic, and noise divided by noise says nothing.
    """
    largest = [float(tensor.abs().max()) for tensor in expected]
    least = 1e-2 * max(largest) or 1.0
    errors = [
        float((ours.double() - theirs.double()).abs().max()) / max(scale, least)
        for ours, theirs, scale in zip(outputs, expected, largest, strict=True)
    ]
    return float("nan") if any(error != error for error in errors) else max(errors)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
