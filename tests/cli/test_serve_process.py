"""The command as a user starts it: the examples of its page, SIGTERM while a stream runs, and nothing left behind."""

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
from pathlib import Path

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


@pytest.mark.slow
def test_examples_of_the_page_work_and_sigterm_finishes_a_stream(workspace: Path, model: Path, tree) -> None:
    temporary = workspace.parent / "temporary"
    temporary.mkdir()
    before = tree(workspace)
    command = [sys.executable, "-m", "codex_ml", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = next(
                found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+$", line.strip()))
            )
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
            port = int(url.rpartition(":")[2])
            body = json.dumps({"prompt": "def ", "max_tokens": 60, "stream": True, "seed": 2}).encode()
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
                stream = client.recv(1 << 16)
                server.send_signal(signal.SIGTERM)
                stream += b"".join(iter(lambda: client.recv(1 << 16), b""))
            rest = server.stderr.read()
            assert server.wait(60) == 0, rest
        finally:
            server.kill()
    assert b"data: [DONE]" in stream
    assert b'"finish_reason":"length"' in stream or b'"finish_reason":"stop"' in stream
    assert rest.splitlines()[-1] == "stopped"
    assert tree(workspace) == before
    assert list(temporary.iterdir()) == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
