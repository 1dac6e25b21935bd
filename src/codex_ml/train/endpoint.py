"""Serve gauges to Prometheus while a run trains, on port `runtime.prometheus_port` of 127.0.0.1 only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.train.tracking import Sink

ADDRESS = "127.0.0.1"
# Key of a point or an event -> name and help of its gauge; units are in the names, as Prometheus asks.
GAUGES = {
    "step": ("global_step", "Optimizer steps done"),
    "train/loss": ("train_loss_nats", "Mean loss of a target token in the last logged step"),
    "train/grad_norm": ("gradient_norm", "L2 norm of the gradient before clipping"),
    "train/lr": ("learning_rate", "Learning rate of the last logged step; of the matrices where a run has two"),
    "train/embedding_lr": ("embedding_learning_rate", "That of embeddings, output head, norms and biases"),
    "val/loss": ("validation_loss_nats", "Mean loss of a target token at the last validation"),
    "tokens_per_second": ("tokens_per_second", "Tokens trained on, per second"),
}


class Endpoint(Sink):
    """Shows the last value of each gauge. A gauge without a value is absent, not 0.

    Raises:
        UserError: when the port is taken or not allowed.
    """

    name = "prometheus"

    def __init__(self, port: int) -> None:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server

        self._registry, self._new_gauge = CollectorRegistry(), Gauge  # none of the process's own collectors
        self._gauges: dict[str, Any] = {}
        try:
            self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=self._registry)
        except OSError as error:
            raise UserError(
                f"runtime.prometheus_port: port {port} of {ADDRESS} cannot be opened ({error.strerror}); choose "
                "another port, or 0 for none"
            ) from None

    def log(self, points: Sequence[dict[str, Any]]) -> None:
        for point in points:
            self.observe(point)

    def observe(self, values: dict[str, Any]) -> None:
        for key, (name, text) in GAUGES.items():
            if key in values:
                self._gauge(name, text).set(values[key])
        for gpu in values.get("gpus", ()):
            if gpu["memory_used_mb"] is not None:
                gauge = self._gauge("gpu_memory_used_bytes", "Memory of the GPU in use, by all processes", ("gpu",))
                gauge.labels(gpu=str(gpu["index"])).set(gpu["memory_used_mb"] * 2**20)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Any:
        if name not in self._gauges:
            self._gauges[name] = self._new_gauge(f"codex_ml_{name}", text, labels, registry=self._registry)
        return self._gauges[name]

    def close(self, *, complete: bool) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
