"""The one thread that runs a network: it takes what waits, images of one size together, and answers each."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from asymseg.data.pixels import Pixels
from asymseg.prediction.result import Result
from asymseg.serving.loading import Loaded

LINGER = 0.003
"""Seconds to wait for companions while other images are on their way."""


@dataclass(eq=False)
class _Job:
    """An image to see, or something else to do on the network's thread."""

    image: Pixels | None
    work: Callable[[], Any] | None = None
    answer: Future[Any] = field(default_factory=Future)

    def goes_with(self, other: "_Job") -> bool:
        if self.image is None or other.image is None:
            return self is other
        return self.image.shape == other.image.shape and self.image.dtype == other.image.dtype


class Worker:
    """A thread that owns a model.

    The image that waits longest is next, and with it up to `batch` images of its size, wherever they stand in the
    queue. A job whose future is cancelled while it waits is dropped.

    Args:
        model: What sees the images; `replace` swaps it between two batches.
        batch: Images that go through the network together.
        coming: How many more images are on their way. Where there are none, no time is lost with waiting for them.
        observe: Told of the size of each batch and its seconds.
    """

    def __init__(
        self,
        model: Loaded,
        *,
        batch: int,
        coming: Callable[[], int] = lambda: 0,
        observe: Callable[[int, float], None] = lambda count, seconds: None,
    ) -> None:
        self.model, self.batch, self.coming, self.observe = model, batch, coming, observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._jobs)

    def look(self, image: Pixels) -> Future[tuple[Result, Loaded]]:
        """What the model says of an image, and which model it was."""
        return self._add(_Job(image))

    def do(self, work: Callable[[], Any]) -> Future[Any]:
        """What `work` gives, done on the network's thread."""
        return self._add(_Job(None, work))

    def replace(self, model: Loaded) -> None:
        """Take another model from the next batch on."""
        self.model = model

    def close(self) -> None:
        """Finish what was taken, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _add(self, job: _Job) -> Future[Any]:
        with self._changed:
            if self._closing:
                raise RuntimeError("the worker is closed")
            self._jobs.append(job)
            self._changed.notify_all()
        job.answer.add_done_callback(self._drop_cancelled)  # which does not hold the job, or it would hold itself
        return job.answer

    def _drop_cancelled(self, answer: Future[Any]) -> None:
        """At once, so that no image waits for whom nobody waits."""
        if answer.cancelled():
            with self._changed:
                self._jobs = deque(job for job in self._jobs if job.answer is not answer)

    def _run(self) -> None:
        while (jobs := self._take()) is not None:
            wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if wanted:
                self._work(wanted)
            del jobs, wanted  # the last answer holds its model, which may be replaced before anybody asks again

    def _take(self) -> list[_Job] | None:
        """The jobs that come next, none where all left while it waited for companions; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            if not self._jobs:
                return None
            if self._jobs[0].image is not None and self.coming() > 0:
                self._changed.wait_for(lambda: len(self._next()) >= self.batch or self._closing, timeout=LINGER)
            jobs = self._next()
            for job in jobs:
                self._jobs.remove(job)
            return jobs

    def _next(self) -> list[_Job]:
        alike = [job for job in self._jobs if job.goes_with(self._jobs[0])]
        return alike[: self.batch]

    def _work(self, jobs: list[_Job]) -> None:
        model, began = self.model, time.perf_counter()
        images = [job.image for job in jobs if job.image is not None]
        try:
            if images:
                answers: list[Any] = [(result, model) for result in model.predictor.several(images)]
            else:
                answers = [job.work() for job in jobs if job.work is not None]
        except Exception as error:  # whose it is, who asked is told
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
            else:  # one image of them need not spoil the others
                logging.getLogger("asymseg").warning(
                    "%d images failed together; seen one by one", len(jobs), exc_info=True
                )
                for job in jobs:
                    self._work([job])
            return
        if images:
            self.observe(len(images), time.perf_counter() - began)
        for job, answer in zip(jobs, answers, strict=True):
            job.answer.set_result(answer)
