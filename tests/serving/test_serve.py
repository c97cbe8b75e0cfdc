"""`asymseg serve` as its user meets it: started, asked, and told to stop while it works."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

import asymseg
from asymseg.cli import main
from asymseg.serving import serve as serving


@pytest.fixture
def started(model):
    """The process and the address that it tells."""
    # Longer last words than usual, lest a machine with much else to do has none left for a request that comes late.
    code = "from asymseg.serving import serve; serve._LAST_WORDS = 2.0; from asymseg.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(model), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stderr.readline()
    assert "serving at http://127.0.0.1:" in line
    yield process, line.split()[2]
    process.kill()
    process.wait()
    process.stderr.close()


def test_what_was_taken_is_finished_and_what_comes_later_is_told_so(started, model, picture):
    process, address = started
    file = BytesIO()
    Image.fromarray(picture(300, 400)).save(file, format="PNG")
    expected = asymseg.load(model, "cpu")(picture(300, 400)).mask
    outcomes, begun = [], threading.Barrier(7)

    def ask():
        with httpx.Client(base_url=address, timeout=60.0) as client:
            client.get("/livez")
            begun.wait()
            while True:
                try:
                    answer = client.post("/v1/predict?output=mask", content=file.getvalue())
                except httpx.TransportError as error:  # the connection was taken, and then dropped
                    outcomes.append(repr(error))
                    return
                outcomes.append(answer.status_code)
                if answer.status_code == 503:
                    assert answer.headers["connection"] == "close"
                    assert answer.json()["error"]["code"] == "stopping"
                    return
                with Image.open(BytesIO(answer.content)) as opened:
                    np.testing.assert_array_equal(np.array(opened), expected)
                if answer.headers.get("connection") == "close":
                    return

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    begun.wait()
    with httpx.Client(base_url=address, timeout=60.0) as watching, httpx.Client(base_url=address) as late:
        late.get("/livez")
        while len(outcomes) < 6:
            threads[0].join(0.01)
        process.send_signal(signal.SIGTERM)
        while watching.get("/readyz").status_code == 200:
            pass
        told = late.post("/v1/predict", content=bytes(4_000_000))  # more than the system would hold
        assert (told.status_code, told.json()["error"]["code"]) == (503, "stopping")
    assert process.wait(60) == 0
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {200, 503}
    assert process.stderr.read() == ""


def test_a_second_signal_ends_it_at_once(started, picture):
    process, address = started
    file = BytesIO()
    Image.fromarray(picture(2000, 3000)).save(file, format="BMP")

    def ask():
        with httpx.Client(base_url=address, timeout=60.0) as client, pytest.raises(httpx.TransportError):
            client.post("/v1/predict?output=mask", content=file.getvalue())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=address, timeout=60.0) as client:
        while "asymseg_requests_in_work 3.0" not in client.get("/metrics").text:
            threads[0].join(0.01)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        threads[0].join(0.5)  # two signals that wait together are one
    assert process.returncode == 128 + signal.SIGTERM
    for thread in threads:
        thread.join()
    assert process.stderr.read() == "ended at once; who waited got no answer\n"


def test_a_signal_that_comes_before_the_start_ends_it(model, monkeypatch):
    load, told = uvicorn.Config.load, []

    def asked_meanwhile(config):
        signal.raise_signal(signal.SIGTERM)
        load(config)

    monkeypatch.setattr(uvicorn.Config, "load", asked_meanwhile)
    serving.serve((str(model),), port=0, device="cpu", started=told.append)
    assert told == []


def test_made_up_requests_get_the_answers_that_the_api_promises(started, tmp_path):
    _, address = started
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{address}/openapi.json", "--no-color"]
    # Bytes that are no image fit the description, too, and are refused.
    rest = ["--exclude-checks", "positive_data_acceptance", "--phases", "fuzzing", "--max-examples", "8", "--seed", "0"]
    told = subprocess.run([*command, *rest], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0, told.stdout
    assert "Tested: 9" in told.stdout


def test_memory_is_given_back_again_and_again(monkeypatch):
    calls = []
    heap = SimpleNamespace(malloc_trim=calls.append)
    monkeypatch.setattr(serving, "_TRIM_EVERY", 0.001)

    async def until_three():
        trimming = asyncio.create_task(serving._trim(heap))
        while len(calls) < 3:
            await asyncio.sleep(0.001)
        trimming.cancel()

    asyncio.run(asyncio.wait_for(until_three(), 10))
    assert set(calls) == {0}


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        main(["serve", *arguments])
    assert leaving.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_port_in_use_is_told_before_anything_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1, port {port}: cannot listen there" in fails(capsys, "nowhere", "--port", str(port))


def test_what_is_wrong_is_told_in_a_line(capsys, tmp_path):
    assert "not a model folder" in fails(capsys, str(tmp_path), "--port", "0")
    assert "max_pixels" in fails(capsys, str(tmp_path), "--max_pixels", "0")
    assert "no such folder" in fails(capsys, str(tmp_path), "--examples", str(tmp_path / "none"))
    assert "not readable" in fails(capsys, str(tmp_path), "--keys", str(tmp_path / "none"))
    assert "port = 99999" in fails(capsys, str(tmp_path), "--port", "99999")
