"""A tiny model behind the endpoint, in a thread of this process, and the official client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import torch
import uvicorn.server

from codex_ml.policy.filters import TextFilter
from codex_ml.policy.rules import parse_policy
from codex_ml.serve.api_counters import Counters
from codex_ml.serve.door import Door
from codex_ml.serve.endpoint_app import Backend, EndpointApp
from codex_ml.serve.http_server import EndpointServer, open_socket
from codex_ml.serve.limits import ServeLimits
from codex_ml.serve.own_model import LocalModel
from codex_ml.serve.prompt_encoder import Served
from codex_ml.serve.screening import Screening

TEXTS = [f"def f{number}(x):\n    return x + {number}  # größer\n" for number in range(24)]
DIGEST = "5" * 64
# Tokens are redacted everywhere. A code name is redacted in a prompt, and an answer with one is refused.
POLICY = r"""
version: 1
detectors: []
providers:
  - {id: github-token, docs: "https://docs.github.com", action: redact, shapes: ['gh[pousr]_[A-Za-z0-9]{36,}']}
rules:
  - id: code-name
    description: Name of a project that is not public
    kind: personal
    severity: low
    action: redact
    literals: [zebrawood]
    pattern: zebrawood
  - id: quoted
    description: A code in quotes
    kind: secret
    severity: high
    action: redact
    literals: [code]
    pattern: 'code is "(?P<value>[A-Za-z0-9]{6,20}+)"'
  - id: account
    description: The number of an account
    kind: secret
    severity: high
    action: redact
    literals: ["4012"]
    pattern: '(?<!\d)4012\d{12}(?!\d)'
  - id: passphrase
    description: A value with this name
    kind: secret
    severity: high
    action: redact
    literals: [passphrase]
    pattern: 'passphrase": "(?P<value>[A-Za-z0-9]{6,20}+)"'
  - id: order
    description: An order to a model
    kind: injection
    severity: medium
    action: allow
    literals: [ignore your rules]
    pattern: ignore your rules
filters:
  output: {personal: refuse}
"""
POSITIONS = 96


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads wait for each other at this size
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def quick_end() -> Iterator[None]:
    """uvicorn sleeps 0.1 s at a time until it sees that it must end; most tests here would wait for that only."""

    def sleep(seconds: float) -> Any:
        return asyncio.sleep(min(seconds, 0.005))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A model whose texts vary, with a byte-level tokenizer and a chat template."""
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.training import train_tokenizer
    from codex_ml.tokens.chat import turn_ends
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.config import Model
    from codex_ml.train.model.build import build_model

    folder = tmp_path_factory.mktemp("tiny")
    train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="byte_bpe", vocab_size=300, chat_template="chatml"), folder)
    tokenizer = load_tokenizer(folder)
    shape = Model(hidden_size=32, intermediate_size=48, layers=2, heads=2, max_positions=POSITIONS)
    ids = {"vocab_size": tokenizer.vocab_size, "end": tokenizer.end, "pad": tokenizer.pad}
    model = build_model(shape, **ids, seed=3, attention="eager").eval()
    with torch.no_grad():  # with small random weights the model repeats its last token
        for name, weight in model.named_parameters():
            weight.mul_(8 if weight.dim() > 1 and "embed" not in name else 1)
    return Served(model, tokenizer, DIGEST, tuple(turn_ends(tokenizer)))


class Parrot:
    """A model without a cache that writes one text after every prompt, then END. Slow if `wait` is set.

    It finds the end of a prompt as the last token with the id `mark`, which the text must not hold; `ahead` tokens of
    the prompt follow it.
    """

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False, max_position_embeddings=4096)

    def __init__(self, ids: list[int], mark: int, vocabulary: int) -> None:
        self.ids, self.mark, self.vocabulary = ids, mark, vocabulary
        self.wait: Callable[[], None] = lambda: None
        self.value = 99.0
        self.ahead = 0

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        self.wait()
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for row, ids in enumerate(input_ids.tolist()):
            last = max(place for place, number in enumerate(ids) if number == self.mark)
            written = len(ids) - 1 - last - self.ahead
            logits[row, -1, self.ids[min(written, len(self.ids) - 1)]] = self.value
        return SimpleNamespace(logits=logits)

    __call__ = forward


@pytest.fixture
def parrot(tiny: Served) -> Callable[..., Served]:
    """A served model that answers every prompt, which must end with the character `end`, with one text."""

    def make(text: str, end: str = "?") -> Served:
        tokenizer = tiny.tokenizer
        [mark] = tokenizer.encode(end).tolist()
        ids = [*tokenizer.encode(text).tolist(), tokenizer.end]
        assert mark not in ids
        return Served(Parrot(ids, mark, tokenizer.vocab_size), tokenizer, DIGEST)

    return make


@pytest.fixture(scope="session")
def screen() -> TextFilter:
    return TextFilter(parse_policy(POLICY), b"a key of the tests")


@dataclass
class Running:
    """An endpoint that runs."""

    url: str
    backend: Any
    server: EndpointServer
    counters: Counters
    token: str | None = None
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def client(self) -> openai.OpenAI:
        """The official client, without retries."""
        if not self.clients:
            self.clients.append(
                openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.token or "none", max_retries=0, timeout=30)
            )
        return self.clients[0]


@contextmanager
def running(
    make: Callable[[Counters], Callable[[], Backend]], limits: ServeLimits, *, token: str | None = None
) -> Iterator[Running]:
    """Serve in a thread until the block ends."""
    counters = Counters()
    app = EndpointApp(make(counters), Door(token, "127.0.0.1", limits), limits, counters)
    address: list[str] = []
    ready = threading.Event()
    with open_socket("127.0.0.1", 0) as opened:

        def tell(url: str) -> None:
            address.append(url)
            ready.set()

        server = EndpointServer(app.build(), 5, tell)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([opened])))
        thread.start()
        assert ready.wait(30)
        found = Running(address[0], app.backend, server, counters, token)
        try:
            yield found
        finally:
            for client in found.clients:
                client.close()
            server.should_exit = True
            thread.join()


@pytest.fixture
def serving(screen: TextFilter) -> Callable[..., Any]:
    """`with serving(served, policy=False, token=..., max_batch=...) as running`."""

    def serve(served: Served, *, policy: bool = True, token: str | None = None, **limits: Any) -> Any:
        def make(counters: Counters) -> Callable[[], Backend]:
            screening = Screening(screen if policy else None, "6" * 64 if policy else None, counters)
            return lambda: LocalModel(served, screening, ServeLimits(**limits))

        return running(make, ServeLimits(**limits), token=token)

    return serve


@pytest.fixture
def run_endpoint() -> Callable[..., Any]:
    """`running`, for any backend."""
    return running


@pytest.fixture
def unused_port() -> int:
    with open_socket("127.0.0.1", 0) as opened:
        return int(opened.getsockname()[1])
