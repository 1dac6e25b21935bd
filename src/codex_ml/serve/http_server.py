"""Run the endpoint: its socket, connections that can be cut, and an end that waits for what runs.

Used by: `codex-ml serve`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.serve.delivery import ABORT

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("codex_ml")
HEAD_SECONDS = 20.0  # for the head of each request of a connection, from the end of the answer before it
READ_SECONDS = 20.0  # in which a client with much unread must read something
MOST_CONNECTIONS = 2048
LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address.

    Raises:
        UserError: for what is not an address; a name could lead anywhere.
    """
    try:
        return ipaddress.ip_address(LOOPBACK if host == "localhost" else host).is_loopback
    except ValueError:
        raise UserError(
            f"--host {host} is not an address; give localhost, or an address such as 127.0.0.1 or 0.0.0.0"
        ) from None


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound, and does not listen yet.

    Raises:
        UserError: when the port is taken or not allowed, or this machine does not have the address.
    """
    address = LOOPBACK if host == "localhost" else host
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((address, port))
    except OSError as error:
        opened.close()
        raise UserError(
            f"--port {port} of {host} cannot be opened ({error.strerror}); choose another one, or 0 for a free one"
        ) from None
    return opened


class _Connection(H11Protocol):
    """A connection that the application can cut, and that ends if no request comes or no answer is read."""

    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request()
        _transports[transport.get_extra_info("peername")[:2]] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        self._stop_watching()
        _transports.pop(self.transport.get_extra_info("peername")[:2], None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(READ_SECONDS, self._cut_unread, unread)

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()

    def _cut_unread(self, unread: int) -> None:
        """End the connection of a client that has read nothing; nothing is added while so much is unread."""
        if self.transport.get_write_buffer_size() < unread:
            self._watch_reader()
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        self._late.cancel()
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered:  # else the next request was here already
            self._expect_request()

    def _expect_request(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._late = self.loop.call_later(HEAD_SECONDS, self._cut_idle, self.cycle, unread)

    def _cut_idle(self, answered: Any, unread: int) -> None:
        """End the connection if no request has come, except to a client that is still reading the last answer."""
        if self.cycle is answered:
            if 0 < self.transport.get_write_buffer_size() < unread:
                self._expect_request()
            else:
                self.transport.abort()


_transports: dict[tuple[str, int], asyncio.Transport] = {}


class _Cutting:
    """Gives the application `ABORT`, which closes the connection although its buffer is not empty."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (transport := _transports.get(tuple(scope["client"]))):
            scope.setdefault("extensions", {})[ABORT] = transport.abort
        await self._app(scope, receive, send)


def run_server(app: Starlette, opened: socket.socket, *, grace: float, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing more and finish what runs.

    Args:
        grace: seconds for what runs.
        ready: is called with the address once it accepts requests.

    Raises:
        CheckFailed: when requests were still running after that, or the start failed.
    """
    server = EndpointServer(app, grace, ready)
    with opened:
        asyncio.run(server.serve([opened]))
    if not server.started:
        raise CheckFailed("the server did not start; run it again with --debug for the reason")
    if server.cut:
        raise CheckFailed(f"{server.cut} requests were still running after {grace:g} seconds and were cut off")


class EndpointServer(uvicorn.Server):
    """uvicorn, except that a signal ends it with success: it would raise the signal again after its end.

    Attributes:
        cut: requests that were still running when the time for the end was over.
    """

    def __init__(self, app: Starlette, grace: float, ready: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            _Cutting(app),
            http=_Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(grace)),
        )
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # its errors quote requests
        super().__init__(config)
        self._ready, self.cut = ready, 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()

    async def _wait_tasks_to_complete(self) -> None:
        try:
            await super()._wait_tasks_to_complete()
        except asyncio.CancelledError:
            self.cut = len(self.server_state.tasks)
            raise
