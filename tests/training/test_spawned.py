"""Workers that begin with nothing, as on Windows and macOS: nothing may lean on what a fork would have copied."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from tiny_runs import run, state, tiny

from asymseg.data.sample import write_sample

SCRIPT = """
import sys

if __name__ == "__main__":  # a worker begins with this file too
    import multiprocessing
    from pathlib import Path

    from tiny_runs import run, tiny

    from asymseg.config import make_config

    multiprocessing.set_start_method(sys.argv[1])
    config = make_config(tiny(steps=3).model_dump(), {"data": {"workers": 1}})
    run(Path("data"), config, Path("spawned"))
"""


def test_a_run_with_spawned_workers_is_the_run_without_any(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", train=4, val=1, test=1)
    (tmp_path / "main.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "main.py", "spawn"]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    run(tmp_path / "data", tiny(steps=3), tmp_path / "alone")
    one, other = (state(tmp_path / name)["network"] for name in ("spawned", "alone"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
