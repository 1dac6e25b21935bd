"""The command as a user starts it: the examples of its page, SIGTERM and SIGKILL while a stream runs, nothing left."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PAGE = Path(__file__).parents[2] / "docs/serve.md"
TEXTS = [f"def f{number}(x):\n    return x + {number}\n" for number in range(24)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.training import train_tokenizer
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.config import Model
    from codex_ml.train.model.adapters import save_model
    from codex_ml.train.model.build import build_model

    folder = tmp_path / "foreign"
    folder.mkdir()
    train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="byte_bpe", vocab_size=300), folder)
    tokenizer = load_tokenizer(folder)
    shape = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=4096)
    ids = {"vocab_size": tokenizer.vocab_size, "end": tokenizer.end, "pad": tokenizer.pad}
    save_model(build_model(shape, **ids, seed=1, attention="eager"), folder)
    return folder


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@contextmanager
def server_of(model: Path, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """(process, port) of the command, which writes temporary files to its own folder."""
    temporary.mkdir()
    command = [sys.executable, "-m", "codex_ml", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            ready = (re.search(r"http://127\.0\.0\.1:(\d+)$", line.strip()) for line in server.stderr)
            yield server, next(int(found[1]) for found in ready if found)
        finally:
            server.kill()


def begun_stream(port: int, path: str, **asked: object) -> tuple[socket.socket, bytes]:
    """A connection on which a stream has begun, and the stream so far."""
    body = json.dumps({**asked, "stream": True, "seed": 2}).encode()
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    return client, client.recv(1 << 16)


def is_free(port: int) -> bool:
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    return True


@pytest.mark.slow
def test_examples_of_the_page_work_and_sigterm_finishes_a_stream(workspace: Path, model: Path, tree) -> None:
    temporary, before = workspace.parent / "temporary", tree(workspace)
    with server_of(model, temporary) as (server, port):
        url = f"http://127.0.0.1:{port}"
        [curl] = [block for block in blocks("sh") if block.startswith("curl")]
        words = shlex.split(curl.replace("\\\n", " ").replace("http://127.0.0.1:8000", url))
        assert shutil.which("curl")
        answer = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
        [example] = blocks("python")
        code = example.replace("http://127.0.0.1:8000", url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert answer["codex_ml"]["decision"] == "allow"
        assert answer["codex_ml"]["model"] in done.stdout
        client, stream = begun_stream(port, "/v1/completions", prompt="def ", max_tokens=60)
        with client:
            server.send_signal(signal.SIGTERM)
            stream += b"".join(iter(lambda: client.recv(1 << 16), b""))
        assert server.stderr is not None
        rest = server.stderr.read()
        assert server.wait(60) == 0, rest
    assert b"data: [DONE]" in stream
    assert b'"finish_reason":"length"' in stream or b'"finish_reason":"stop"' in stream
    assert rest.splitlines()[-1] == "stopped"
    assert tree(workspace) == before
    assert list(temporary.iterdir()) == []
    assert is_free(port)


@pytest.mark.slow
def test_a_killed_server_leaves_nothing(workspace: Path, model: Path, tree) -> None:
    """It is killed while it writes a stream, and while the process that renders its chat template lives."""
    settings = model / "tokenizer_config.json"
    template = "{% for one in messages %}{{ one['content'] }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    temporary, before = workspace.parent / "temporary", tree(workspace)
    with server_of(model, temporary) as (server, port):
        said = [{"role": "user", "content": "def "}]
        client, stream = begun_stream(port, "/v1/chat/completions", messages=said, max_tokens=4000)
        assert stream.startswith(b"HTTP/1.1 200")
        children = psutil.Process(server.pid).children(recursive=True)
        assert children, "the template of another model is rendered in a process of its own"
        server.kill()
        assert server.wait(60) == -signal.SIGKILL
        with client, suppress(ConnectionResetError):
            while client.recv(1 << 16):
                pass
        assert psutil.wait_procs(children, timeout=60)[1] == []
    assert tree(workspace) == before
    assert list(temporary.iterdir()) == []
    assert is_free(port)
