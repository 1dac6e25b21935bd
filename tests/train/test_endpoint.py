"""Prometheus gets the latest values, from this machine only, until the run ends."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import types
import urllib.error
import urllib.request

import pytest

from codex_ml.core.errors import UserError


class FakePrometheus(types.ModuleType):
    """The four names of prometheus_client that are used, over a list of calls."""

    def __init__(self):
        super().__init__("prometheus_client")
        self.values, self.calls = {}, []
        values, calls = self.values, self.calls

        class Gauge:
            def __init__(self, name, text, labels, registry):
                assert text
                assert name not in values
                self.name, self.of = name, ""

            def labels(self, **labels):
                other = object.__new__(type(self))
                other.name, other.of = self.name, str(labels)
                return other

            def set(self, value):
                values[self.name + self.of] = value

        def start_http_server(port, addr, registry):
            calls.append(("start", port, addr))
            if port == 1:
                raise OSError(98, "Address already in use")
            thread = threading.Thread(target=lambda: None)
            thread.start()
            ends = {name: (lambda name=name: calls.append((name,))) for name in ("shutdown", "server_close")}
            return types.SimpleNamespace(**ends), thread

        self.CollectorRegistry, self.Gauge, self.start_http_server = object, Gauge, start_http_server


@pytest.fixture
def fake(monkeypatch):
    library = FakePrometheus()
    monkeypatch.setitem(sys.modules, "prometheus_client", library)
    return library


def test_gauges_hold_the_last_value_and_what_is_unknown_is_not_there(fake):
    from codex_ml.train.endpoint import Endpoint

    endpoint = Endpoint(9400)
    assert fake.values == {}
    rates = {"train/lr": 0.001, "train/embedding_lr": 0.25}
    endpoint.log([{"step": 5, "train/loss": 3.25, **rates}, {"step": 10, "train/loss": 2.5}])
    endpoint.observe({"tokens_per_second": 900.0, "other": 1})
    gpus = [{"index": 0, "memory_used_mb": 2.0}, {"index": 1, "memory_used_mb": None}]
    endpoint.observe({"cpu_percent": 3.0, "gpus": gpus})
    assert fake.values == {
        "codex_ml_global_step": 10,
        "codex_ml_train_loss_nats": 2.5,
        "codex_ml_learning_rate": 0.001,
        "codex_ml_embedding_learning_rate": 0.25,
        "codex_ml_tokens_per_second": 900.0,
        "codex_ml_gpu_memory_used_bytes{'gpu': '0'}": 2097152.0,
    }
    endpoint.close(complete=True)
    assert fake.calls == [("start", 9400, "127.0.0.1"), ("shutdown",), ("server_close",)]


def test_a_taken_port_is_told(fake):
    from codex_ml.train.endpoint import Endpoint

    with pytest.raises(UserError) as error:
        Endpoint(1)
    assert str(error.value) == (
        "runtime.prometheus_port: port 1 of 127.0.0.1 cannot be opened (Address already in use); choose another "
        "port, or 0 for none"
    )


@pytest.fixture
def library():
    return pytest.importorskip("prometheus_client")


@pytest.fixture
def port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_the_page_is_there_while_the_run_is(library, port):
    from codex_ml.train.endpoint import Endpoint

    threads = threading.active_count()
    endpoint = Endpoint(port)
    try:
        assert page(port) == {}
        endpoint.log([{"step": 10, "train/loss": 2.5, "train/grad_norm": 0.5, "train/lr": 1e-3, "val/loss": 2.75}])
        endpoint.observe({"tokens_per_second": 900.0, "gpus": [{"index": 0, "memory_used_mb": 1.5}]})
        assert page(port) == {
            "codex_ml_global_step": "10.0",
            "codex_ml_train_loss_nats": "2.5",
            "codex_ml_gradient_norm": "0.5",
            "codex_ml_learning_rate": "0.001",
            "codex_ml_validation_loss_nats": "2.75",
            "codex_ml_tokens_per_second": "900.0",
            'codex_ml_gpu_memory_used_bytes{gpu="0"}': "1.572864e+06",
        }
        assert endpoint._server.server_address == ("127.0.0.1", port)
    finally:
        endpoint.close(complete=True)
    with pytest.raises(urllib.error.URLError):
        page(port)
    assert threading.active_count() <= threads


def test_a_port_that_someone_listens_on_is_refused(library):
    from codex_ml.train.endpoint import Endpoint

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"^runtime\.prometheus_port: port {port} of 127\.0\.0\.1 cannot be opened \("
        ):
            Endpoint(port)
