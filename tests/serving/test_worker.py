"""The thread that owns a network: what it takes together, in which order, and what becomes of faults."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from asymseg.errors import ConfigError
from asymseg.serving.loading import Loaded
from asymseg.serving.worker import Worker


class Network:
    """Answers an image with the number in it; notes what came together, and waits at the gate."""

    info = parameters = device = attends = None

    def __init__(self):
        self.batches, self.gate = [], threading.Event()

    def several(self, images):
        self.gate.wait(10)
        self.batches.append([int(image.flat[0]) for image in images])
        if 13 in self.batches[-1]:
            raise ConfigError("13 does not fit")
        return [int(image.flat[0]) for image in images]


def loaded(network):
    return Loaded("model", network, "1", ())


def image(number, height=4, width=6, kind=np.uint8):
    return np.full((height, width, 3), number, kind)


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def worker(network):
    made = Worker(loaded(network), batch=3)
    blocking = made.do(network.gate.wait)  # until the test has put all it wants into the queue
    while len(made):
        time.sleep(0.001)
    yield made
    network.gate.set()
    blocking.result(10)
    made.close()


def test_images_of_one_size_go_together_and_the_oldest_first(worker, network):
    kinds = [(1, 4), (2, 5), (3, 4), (4, 4), (5, 4), (6, 5)]
    answers = [worker.look(image(number, height)) for number, height in kinds]
    network.gate.set()
    assert [answer.result(10)[0] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert network.batches == [[1, 3, 4], [2, 6], [5]]


def test_bytes_and_floats_do_not_go_together(worker, network):
    answers = [worker.look(image(1)), worker.look(image(2, kind=np.float32))]
    network.gate.set()
    assert [answer.result(10)[0] for answer in answers] == [1, 2]
    assert network.batches == [[1], [2]]


def test_one_that_fails_spoils_no_other(worker, network):
    answers = [worker.look(image(number)) for number in (1, 13, 2)]
    network.gate.set()
    assert [answers[0].result(10)[0], answers[2].result(10)[0]] == [1, 2]
    with pytest.raises(ConfigError, match="13 does not fit"):
        answers[1].result(10)
    assert worker.look(image(4)).result(10)[0] == 4  # and it goes on


def test_whose_client_left_is_dropped_at_once(worker, network):
    answers = [worker.look(image(number)) for number in (1, 2, 3)]
    assert answers[1].cancel()
    assert len(worker) == 2
    network.gate.set()
    assert [answers[0].result(10)[0], answers[2].result(10)[0]] == [1, 3]
    assert network.batches == [[1, 3]]


def test_other_work_has_its_turn(worker, network):
    answers = [worker.look(image(1)), worker.do(lambda: "other"), worker.look(image(2))]
    network.gate.set()
    assert answers[1].result(10) == "other"
    assert [answers[0].result(10)[0], answers[2].result(10)[0]] == [1, 2]


def test_closing_finishes_what_was_taken(worker, network):
    answers = [worker.look(image(number)) for number in (1, 2, 3, 4)]
    network.gate.set()
    worker.close()
    assert all(answer.done() and answer.result()[0] == number for number, answer in enumerate(answers, start=1))
    with pytest.raises(RuntimeError):
        worker.look(image(5))


def test_a_replaced_model_answers_what_comes_after(worker, network):
    other = Network()
    other.gate.set()
    before, newer = worker.model, loaded(other)
    network.gate.set()
    assert worker.look(image(1)).result(10) == (1, before)
    worker.replace(newer)
    assert worker.look(image(2)).result(10) == (2, newer)


def test_it_waits_a_moment_for_what_is_on_its_way(network, monkeypatch):
    monkeypatch.setattr("asymseg.serving.worker.LINGER", 10.0)
    network.gate.set()
    worker = Worker(loaded(network), batch=2, coming=lambda: 1)
    answers = [worker.look(image(1))]
    with pytest.raises(TimeoutError):
        answers[0].result(0.05)
    answers.append(worker.look(image(2)))
    assert [answer.result(10)[0] for answer in answers] == [1, 2]
    assert network.batches == [[1, 2]]
    worker.close()


def test_it_outlives_an_image_whose_client_leaves_while_it_waits_for_companions(network, monkeypatch):
    monkeypatch.setattr("asymseg.serving.worker.LINGER", 0.05)
    network.gate.set()
    waits = threading.Event()
    worker = Worker(loaded(network), batch=2, coming=lambda: waits.set() or 1)
    left = worker.look(image(1))
    assert waits.wait(10)
    assert left.cancel()
    time.sleep(0.2)  # until it has waited in vain
    assert worker.look(image(2)).result(10)[0] == 2
    worker.close()
    assert network.batches == [[2]]


def test_it_tells_of_its_batches(network):
    told = []
    network.gate.set()
    worker = Worker(loaded(network), batch=2, observe=lambda count, seconds: told.append(count))
    answer: Future = worker.look(image(1))
    assert answer.result(10)[0] == 1
    worker.close()
    assert told == [1]
