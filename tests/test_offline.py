"""Nothing of ours asks the network, from made-up scenes to an exported file; and what would ask is seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_all_commands_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "offline.py"), str(tmp_path / "world"), "--together"]
    done = subprocess.run(command, capture_output=True, text=True)
    facts = json.loads(done.stdout)
    assert (facts["asked_by_python"], facts["failed"], done.returncode) == ([], [], 0), done.stdout
    assert (tmp_path / "world" / "again").is_dir()


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()",
        "socket.getaddrinfo('example.org', 80)",
        "socket.gethostbyname('example.org')",
        "socket.create_connection(('127.0.0.1', 9))",
        "__import__('urllib.request').request.urlopen('http://example.org')",
    ],
)
def test_what_asks_is_noted(tmp_path: Path, code: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS / "guard"), "ASKED": str(tmp_path / "asked")}
    done = subprocess.run([sys.executable, "-c", f"import socket\n{code}"], env=environment, capture_output=True)
    assert done.returncode != 0
    assert (tmp_path / "asked").read_text().startswith("socket.")


def test_processes_of_one_machine_may_talk(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS / "guard"), "ASKED": str(tmp_path / "asked")}
    code = "import socket\none, other = socket.socketpair()\none.send(b'x')"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not (tmp_path / "asked").exists()
