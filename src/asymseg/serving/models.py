"""The models that are served: each with its worker, and replaced when its files are."""

import asyncio
import logging
from collections.abc import Callable

from asymseg.errors import AsymsegError
from asymseg.serving.loading import open_loaded, stamp_of
from asymseg.serving.metrics import Metrics
from asymseg.serving.refusals import Refusal
from asymseg.serving.worker import Worker

LOOK_EVERY = 2.0
"""Seconds between looks at the files of the models."""


class Models:
    """What is served, by name.

    Args:
        sources: Where each model lies, by its name; the first is that of requests that name none.
        device: Where they run.
        batch: Images that go through a network together.
        coming: How many more images are on their way to the workers.
        metrics: Told of batches and replacements.

    Raises:
        AsymsegError: One of them cannot be loaded.
    """

    def __init__(
        self, sources: dict[str, str], device: str, *, batch: int, coming: Callable[[], int], metrics: Metrics
    ) -> None:
        self.sources, self.device, self.metrics = sources, device, metrics
        self.faults: dict[str, str] = {}
        """Why a model could not be replaced by what lies there now, by its name."""
        loaded = [open_loaded(name, source, device) for name, source in sources.items()]
        self.workers = {
            model.name: Worker(model, batch=batch, coming=coming, observe=self._observer(model.name))
            for model in loaded
        }
        self._tried = {model.name: model.stamp for model in loaded}

    def pick(self, name: str | None) -> Worker:
        """Raises Refusal for a model that is not served."""
        worker = next(iter(self.workers.values())) if name is None else self.workers.get(name)
        if worker is None:
            raise Refusal(404, "no_model", f"no model {name!r} here; there are {', '.join(self.workers)}")
        return worker

    async def watch(self, seconds: float = LOOK_EVERY) -> None:
        """Replace models whose files are, for ever."""
        seen = dict(self._tried)
        while True:
            await asyncio.sleep(seconds)
            for name, source in self.sources.items():
                stamp = await asyncio.to_thread(stamp_of, source)
                if stamp and stamp != self._tried[name] and stamp == seen[name]:  # nobody writes it any more
                    await asyncio.to_thread(self.reload, name)
                seen[name] = stamp

    def reload(self, name: str) -> None:
        """Load what lies there now, and take it from the next batch on; what cannot be loaded replaces nothing."""
        source = self.sources[name]
        self._tried[name] = stamp_of(source)
        try:
            loaded = open_loaded(name, source, self.device)
        except Exception as error:  # files half written or gone again; whatever it is, watching goes on
            if not isinstance(error, AsymsegError):
                logging.getLogger("asymseg").exception("%s: cannot be loaded anew", source)
            self.faults[name] = " ".join(str(error).split()) or type(error).__name__
            self.metrics.reload_failures.labels(name).inc()
            return
        self.faults.pop(name, None)
        self.workers[name].replace(loaded)
        self.metrics.reloads.labels(name).inc()

    def close(self) -> None:
        """Finish what was taken, and end."""
        for worker in self.workers.values():
            worker.close()

    def _observer(self, name: str) -> Callable[[int, float], None]:
        def observe(count: int, seconds: float) -> None:
            self.metrics.batches.labels(name).observe(count)
            self.metrics.network_seconds.labels(name).observe(seconds)

        return observe
