"""Limits of a running server: time, memory, clients that leave, and nothing on the disk."""

import asyncio
import json
import sys
import threading
import time
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from asymseg.serving.app import make_app
from asymseg.serving.examples import Examples
from asymseg.serving.room import Limits
from asymseg.serving.service import Service
from asymseg.serving.uploads import image_bytes


@pytest.fixture
def photo(picture):
    file = BytesIO()
    Image.fromarray(picture(40, 60)).save(file, format="PNG")
    return file.getvalue()


class Gate:
    """Lets a service's network run only once it is opened."""

    def __init__(self, service):
        self.event = threading.Event()
        self.worker = service.models.pick(None)
        self.blocking = self.worker.do(self.event.wait)
        while len(self.worker):
            time.sleep(0.001)

    def open(self):
        self.event.set()
        self.blocking.result(10)


def ask(app, body, *, leave=None, method="POST", path="/v1/predict", chunks=None):
    """One request straight into the application: the status and content of its answer.

    `leave` is awaited before the client is gone; `chunks` are the parts of the body, None a client that leaves.
    """

    async def asking():
        parts = list(chunks) if chunks is not None else [body]
        messages = []

        async def receive():
            if parts:
                part = parts.pop(0)
                if part is None:
                    return {"type": "http.disconnect"}
                if callable(part):
                    part = await part()
                return {"type": "http.request", "body": part, "more_body": bool(parts)}
            if leave is None:
                await asyncio.Event().wait()
            await leave()
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 9),
            "root_path": "",
        }
        await app(scope, receive, send)
        return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)

    return asyncio.run(asking())


@pytest.fixture
def service(model):
    made = Service({"street": str(model)}, "cpu", Limits(max_bytes=100_000))
    yield made
    asyncio.run(made.close())


@pytest.fixture
def app(service):
    return make_app(service, Examples())


def is_empty(service):
    room = service.room
    return (room.requests, room.bytes, room.pixels, service.decoding, len(service.models.pick(None))) == (0,) * 5


def test_who_leaves_leaves_nothing_behind(service, app, photo):
    gate = Gate(service)

    async def leave():
        while not len(gate.worker):  # until the image waits for the network
            await asyncio.sleep(0.001)

    status, _ = ask(app, photo, leave=leave)
    assert status == 499
    assert is_empty(service)
    gate.open()
    assert "asymseg_clients_left_total 1.0" in service.metrics.text().decode()


def test_who_leaves_while_sending_leaves_nothing_behind(service, app):
    assert ask(app, b"", chunks=[b"x" * 50, None])[0] == 499
    assert is_empty(service)


def test_an_answer_that_takes_too_long(service, app, photo):
    service.limits = Limits(timeout=0.3)
    gate = Gate(service)
    status, content = ask(app, photo)
    assert (status, json.loads(content)["error"]["code"]) == (504, "timeout")
    assert is_empty(service)
    gate.open()
    service.limits = Limits()
    assert ask(app, photo)[0] == 200


def test_a_body_that_takes_too_long(service, app):
    async def slowly():
        await asyncio.sleep(10)
        return b"x"

    service.limits = Limits(timeout=0.3)
    status, content = ask(app, b"", chunks=[b"x", slowly])
    assert (status, json.loads(content)["error"]["code"]) == (408, "slow")
    assert is_empty(service)


@pytest.mark.parametrize("chunks", [[b"x" * 100_001], [b"x" * 60_000] * 3, [b"x" * 60_000] * 1000])
def test_a_body_that_is_too_large_is_heard_out_but_not_held(service, app, chunks):
    most = 0

    async def watched(chunk):
        nonlocal most
        most = max(most, service.room.bytes)
        return chunk

    status, content = ask(app, b"", chunks=[lambda chunk=chunk: watched(chunk) for chunk in chunks])
    assert (status, json.loads(content)["error"]["code"]) == (413, "too_large")
    assert most <= 100_000
    assert is_empty(service)


def test_a_full_queue_says_when_to_come_back(starting, photo):
    with starting(limits={"queue": 1}) as client:
        gate = Gate(client.service)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/predict", content=photo)))
        asking.start()
        while not len(gate.worker):
            time.sleep(0.001)
        refused = client.post("/v1/predict", content=photo)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        gate.open()
        asking.join()
        assert answers[0].status_code == 200


def test_who_sends_slowly_keeps_nobody_out(service, app, photo):
    service.limits = service.room.limits = Limits(queue=1)
    others = []

    async def rest():
        others.append(await asyncio.to_thread(ask, app, photo))  # a whole request, while this one's body is half there
        return photo[100:]

    status, _ = ask(app, b"", chunks=[photo[:100], rest])
    assert [status, others[0][0]] == [200, 200]
    assert is_empty(service)


def test_a_body_that_is_whole_when_the_queue_is_full_is_told_so(service, app, photo):
    async def rest():
        service.room.requests += service.limits.queue
        return photo[100:]

    status, content = ask(app, b"", chunks=[photo[:100], rest])
    assert (status, json.loads(content)["error"]["code"]) == (503, "busy")
    service.room.requests -= service.limits.queue
    assert is_empty(service)


def test_the_body_of_a_form_is_taken_apart_while_others_are_answered(starting, photo, monkeypatch):
    others, waited = threading.Event(), []

    def taking_long(headers, body):
        waited.append(others.wait(30))
        return image_bytes(headers, body)

    monkeypatch.setattr("asymseg.serving.service.image_bytes", taking_long)
    with starting() as client:
        answers = []
        send = threading.Thread(target=lambda: answers.append(client.post("/v1/predict", files={"image": photo})))
        send.start()
        while client.service.decoding == 0:
            time.sleep(0.001)
        assert client.get("/livez").status_code == 200
        others.set()
        send.join()
        assert (waited, answers[0].status_code) == ([True], 200)


SHORTAGES = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
]


@pytest.mark.parametrize("shortage", SHORTAGES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["network", "answer"])
def test_an_image_that_memory_does_not_suffice_for_is_refused(starting, photo, monkeypatch, caplog, where, shortage):
    def hungry(*arguments, **more):
        raise shortage

    with starting() as client:
        predictor = client.service.models.pick(None).model.predictor
        if where == "network":
            monkeypatch.setattr(predictor, "several", hungry)
        else:
            monkeypatch.setattr("asymseg.serving.service.as_json", hungry)
        answer = client.post("/v1/predict?keep=true", content=photo)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        assert "send a smaller image" in answer.json()["error"]["message"]
        assert "memory ran out" in caplog.text
        assert len(client.service.kept) == 0
        monkeypatch.setattr(client.service.room, "requests", 1)  # another one is in work
        answer = client.post("/v1/predict?keep=true", content=photo)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        client.service.room.requests = 0
        monkeypatch.undo()
        assert client.post("/v1/predict", content=photo).status_code == 200


def test_attention_that_memory_does_not_suffice_for_is_refused(starting, photo, monkeypatch):
    def hungry(*arguments):
        raise SHORTAGES[1]

    monkeypatch.setattr("asymseg.prediction.predict.attend", hungry)
    with starting() as client:
        name = client.post("/v1/predict?keep=true", content=photo).json()["id"]
        answer = client.get(f"/v1/predictions/{name}/pixel?row=0&column=0")
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_requests_that_come_together_go_through_the_network_together(starting, picture):
    with starting() as client:
        gate = Gate(client.service)
        files = []
        for seed in range(5):
            file = BytesIO()
            Image.fromarray(picture(40, 60, seed)).save(file, format="PNG")
            files.append(file.getvalue())
        answers = {}

        def ask_for(number):
            answers[number] = client.post("/v1/predict?output=mask", content=files[number]).content

        threads = [threading.Thread(target=ask_for, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        while len(gate.worker) < 5:
            time.sleep(0.001)
        gate.open()
        for thread in threads:
            thread.join()
        assert 'asymseg_batch_images_bucket{le="4.0",model="street"} 0.0' in client.get("/metrics").text
        for number in range(5):
            alone = client.post("/v1/predict?output=mask", content=files[number]).content
            assert answers[number] == alone


def test_a_mistake_of_ours_shows_no_insides(starting, photo, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("the secret insides")

    with starting() as client:
        monkeypatch.setattr("asymseg.serving.service.as_json", broken)
        answer = client.post("/v1/predict", content=photo)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_while_it_stops_nothing_new_is_taken(starting, photo):
    with starting() as client:
        client.service.room.stopping = True
        for answer in (client.post("/v1/predict", content=photo), client.get("/readyz")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
            assert "retry-after" in answer.headers
        assert client.get("/livez").status_code == 200


_opened: list[str] = []


def _watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        _opened.append(str(arguments[0]))
    elif event in ("tempfile.mkstemp", "tempfile.mkdtemp", "os.mkdir", "os.rename", "os.truncate"):
        _opened.append(event)


def test_no_upload_touches_the_disk(starting):
    """Larger than all the sizes at which libraries spool: 1 MiB is that of forms."""
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), dtype=np.uint8)
    np.save(file, noise)
    data = file.getvalue()
    assert len(data) > 2 * 2**20
    with starting() as client:
        sys.addaudithook(_watch)
        _opened.clear()
        form = client.post("/v1/predict", files={"image": ("a.npy", data)})
        raw = client.post("/v1/predict?polygons=true&keep=true", content=data)
        arrays = client.post("/v1/predict?output=probabilities", content=data)
        assert [answer.status_code for answer in (form, raw, arrays)] == [200, 200, 200]
        assert _opened == []
        with open("/dev/null", "w"):  # so the trap works
            pass
        assert _opened == ["/dev/null"]
