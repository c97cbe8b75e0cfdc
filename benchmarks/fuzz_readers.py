"""Damaged and hostile files: does every reader give a good answer or one line, in time and within memory?

    OMP_NUM_THREADS=1 python benchmarks/fuzz_readers.py --inputs 50000 --seed 0 --out fuzz.json

Whole files of every kind that the library reads are changed at random (`mutations.py`) and read as a command would
read them (`readers.py`): pictures, masks, classes, settings, model folders, checkpoints, training states, exported
files, other tools' annotations, rasters, films. Each must be read or refused by an AsymsegError of one printable line.
All else is a fault and is listed with its number: another exception, a death of the process, more than 20 s of the
processor, more than 2 GiB beyond what the libraries take, more than 20 lines on standard error. Each reader has a
process of its own; one that dies is started again after the input that killed it. `--only NAME --first NUMBER --inputs
1` repeats an input; with `--out`, `--only` replaces what the file has of those readers and leaves the others. Needs
Linux or macOS; the limit of memory holds on Linux alone.
"""

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

SECONDS = 20
SPARE = 2 * 2**30
LINES = 20
SHOWN = 10


class TooLongError(BaseException):
    """An input took more than `SECONDS`; nothing in the library may catch it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Damaged and hostile files for every reader.")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a reader's name; all by default")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each reader")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        read_all(arguments.only[0], arguments.seed, *arguments.child)
        return
    from readers import READERS

    chosen = {name: share for name, (_, share) in READERS.items() if not arguments.only or name in arguments.only}
    results = {}
    for name, share in chosen.items():
        count = -(-arguments.inputs * share // sum(chosen.values()))
        results[name] = watched(name, arguments.seed, arguments.first, count)
        print(name, json.dumps(results[name]), flush=True)
    if arguments.only and arguments.out and arguments.out.is_file():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))["readers"] | results
    facts = {
        "inputs": sum(result["inputs"] for result in results.values()),
        "faults": sum(result["faults"] for result in results.values()),
        "readers": results,
        "seed": arguments.seed,
        "date": date.today().isoformat(),
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{facts['inputs']} inputs, {facts['faults']} faults")
    sys.exit(facts["faults"] > 0)


def watched(name: str, seed: int, first: int, count: int) -> dict[str, Any]:
    """What became of the inputs `first` to `first + count - 1` of a reader."""
    outcomes, faults, slowest, most = Counter[str](), list[str](), 0.0, 0
    number, end = first, first + count
    while number < end:
        command = [sys.executable, __file__, "--only", name, "--seed", str(seed), "--child", str(number), str(end)]
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            assert child.stdout is not None
            began = False
            for line in child.stdout:
                told, began = json.loads(line), True
                if "memory" in told:  # the first line and the last
                    most = max(most, told["memory"])
                    continue
                number = told["number"] + 1
                outcomes[told["outcome"]] += 1
                slowest = max(slowest, told["seconds"])
                if told["fault"]:
                    faults.append(f"{told['number']}: {told['fault']}")
            if child.wait() != 0:
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip()[-300:]
                if not began:
                    raise RuntimeError(f"{name}: the whole files could not be made: {last}")
                faults.append(f"{number}: the process ended with {child.returncode}: {last}")
                outcomes["death"] += 1
                number += 1
    return {
        "inputs": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "faults": len(faults),
        "first_faults": faults[:SHOWN],
        "slowest_seconds": round(slowest, 2),
        "memory_beyond_start_MiB": most,
    }


def read_all(name: str, seed: int, first: int, end: int) -> None:
    """The child: reads each input and prints a line of JSON on it."""
    from readers import READERS

    from asymseg.errors import AsymsegError

    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print would spoil the lines
    signal.signal(signal.SIGPROF, _too_long)
    logging.captureWarnings(False)
    with tempfile.TemporaryDirectory() as place:
        reader = READERS[name][0](Path(place))
        with contextlib.suppress(AsymsegError):
            _read(reader, reader.wholes[0])  # once whole: what it loads is not counted as its memory
        _limit_memory()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told.write(json.dumps({"memory": 0}) + "\n")
        for number in range(first, end):
            choose = random.Random(f"{seed} {name} {number}")
            content = choose.choice(reader.changes)(choose, reader.wholes)
            said, began = os.fstat(2).st_size, time.perf_counter()
            outcome, fault = judged(reader, content)
            seconds = time.perf_counter() - began
            if not fault and os.fstat(2).st_size > said:
                fault = _flood(said)
            line = {"number": number, "outcome": outcome, "fault": fault, "seconds": round(seconds, 3)}
            told.write(json.dumps(line) + "\n")
        most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        told.write(json.dumps({"memory": most}) + "\n")


def judged(reader: Any, content: bytes) -> tuple[str, str]:
    """What came of it in a word, and what is wrong with that, if anything."""
    from asymseg.errors import AsymsegError

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)  # where no Python runs that could hear the alarm
    try:
        _read(reader, content)
        return "read", ""
    except AsymsegError as error:
        text = str(error)
        good = text.isprintable() and 0 < len(text) <= 4000
        return type(error).__name__, "" if good else f"not one printable line of a sensible length: {text!r}"[:500]
    except TooLongError:
        return "hang", f"took more than {SECONDS} s"
    except Exception as error:
        return "fault", _where(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def _read(reader: Any, content: bytes) -> None:
    reader.path.write_bytes(content)
    reader.read()


def _where(error: Exception) -> str:
    """The error and the deepest line of ours that it passed."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "asymseg" in name:
            place = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:200]!r} at {place}"


def _flood(since: int) -> str:
    text = os.pread(2, 2**16, since).decode(errors="replace")
    return f"{text.count(chr(10))} lines on standard error: {text[:300]!r}" if text.count("\n") > LINES else ""


def _limit_memory() -> None:
    pages = Path("/proc/self/statm")
    if pages.is_file():
        limit = int(pages.read_text().split()[0]) * resource.getpagesize() + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _too_long(*_: object) -> None:
    raise TooLongError


if __name__ == "__main__":
    main()
