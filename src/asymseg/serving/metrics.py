"""What Prometheus is told."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "asymseg_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "asymseg_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "asymseg_batch_images",
            "Images that went through the network together.",
            ("model",),
            buckets=_SIZES,
            registry=self.registry,
        )
        self.network_seconds = Histogram(
            "asymseg_batch_seconds", "Of one batch.", ("model",), buckets=_SECONDS, registry=self.registry
        )
        self.reloads = Counter("asymseg_reloads", "Models replaced.", ("model",), registry=self.registry)
        self.reload_failures = Counter(
            "asymseg_reload_failures", "Models that could not be replaced.", ("model",), registry=self.registry
        )
        self.waiting = Gauge(
            "asymseg_queue_length", "Images that wait for the network.", ("model",), registry=self.registry
        )
        self.left = Counter("asymseg_clients_left", "Clients that left before their answer.", registry=self.registry)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A number that is asked for when somebody looks."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """An answer."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
