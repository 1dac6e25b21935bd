"""Ask one other endpoint over plain HTTP, and no other host: `h11`, which comes with uvicorn, speaks the protocol.

Used by: upstream.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h11

from codex_ml.core.errors import UserError

PIECE = 1 << 16  # bytes that are read at once
CONNECT_SECONDS = 10.0
PRINTABLE = re.compile("[!-~]*")  # characters of a URL in HTTP


class UpstreamError(Exception):
    """The other endpoint cannot be reached, or does not speak HTTP."""


@dataclass(frozen=True)
class UpstreamAddress:
    """Where the other endpoint is.

    Attributes:
        ip, port: where connections go; found once, so that no answer of a name server changes it later.
        host: for the header Host.
        path: before `/v1`, without a slash at its end.
        token: is sent as `Authorization: Bearer TOKEN`; None: nothing is.
    """

    ip: str
    port: int
    host: str
    path: str
    token: str | None


def upstream_address(url: str, token: str | None) -> UpstreamAddress:
    """The address in `--upstream`.

    Raises:
        UserError: for what is not http://HOST[:PORT][/PATH], naming what is wrong, or a host that has no address. It
            never quotes the URL, which may hold a password.
    """
    if not PRINTABLE.fullmatch(url):
        raise UserError(
            "--upstream holds a space or a character that is not ASCII, which HTTP cannot carry; write it as %XX, such "
            "as %20 for a space"
        )
    parts, port, wrong = _parsed(url)
    if wrong:
        raise UserError(f"--upstream must be http://HOST:PORT, such as http://127.0.0.1:8080; {', and '.join(wrong)}")
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UserError(f"--upstream: the host {parts.hostname} has no address; check its name") from None
    ip = str(found[0][4][0])
    ipaddress.ip_address(ip.partition("%")[0])
    return UpstreamAddress(ip, port, parts.netloc, parts.path.rstrip("/").removesuffix("/v1"), token)


def _parsed(url: str) -> tuple[SplitResult, int, list[str]]:
    """(parts, port, what is wrong) of a URL."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        return urlsplit(""), 0, ["its host is not one"]
    try:
        port = 80 if parts.port is None else parts.port
    except ValueError:
        port = 0
    https = parts.scheme == "https"
    checks = {
        "https is not supported": https,
        "it does not begin with http://": parts.scheme != "http" and not https,
        "it holds a user or password before @; give a token with --upstream-token-file": "@" in parts.netloc,
        "it names no host": not parts.hostname,
        "its port is not a number from 1 to 65535": port == 0,
        "it holds a query after ?, which is not supported": bool(parts.query),
        "it holds a fragment after #, which is not supported": bool(parts.fragment),
    }
    return parts, port, [what for what, found in checks.items() if found]


@dataclass
class UpstreamAnswer:
    """An answer whose body is still to be read.

    Attributes:
        kind: its media type, in lower case.
    """

    status: int
    kind: str
    pieces: AsyncGenerator[bytes, None]

    async def body(self, most: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamError: when it has more than `most` bytes.
        """
        size, pieces = 0, []
        async for piece in self.pieces:
            size += len(piece)
            if size > most:
                raise UpstreamError(f"its answer has more than {most} bytes")
            pieces.append(piece)
        return b"".join(pieces)


@asynccontextmanager
async def asked(address: UpstreamAddress, method: str, path: str, body: bytes) -> AsyncGenerator[UpstreamAnswer, None]:
    """Send one request on a connection of its own, which closes with the block.

    Raises:
        UpstreamError: when there is no answer in HTTP.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(address.ip, address.port)
    except (OSError, TimeoutError):
        raise UpstreamError("it cannot be reached") from None
    try:
        connection = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", address.host),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        if address.token is not None:
            headers.append(("Authorization", f"Bearer {address.token}"))
        events = [h11.Request(method=method, target=f"{address.path}{path}", headers=headers), h11.Data(data=body)]
        for event in (*events, h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        head = await _next(connection, reader)
        if not isinstance(head, h11.Response):
            raise UpstreamError("it sent no answer")
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        if named.get("content-encoding", "identity").lower() != "identity":
            raise UpstreamError("it compresses its answer although it was asked not to")
        kind = named.get("content-type", "").partition(";")[0].strip().lower()
        yield UpstreamAnswer(head.status_code, kind, _pieces(connection, reader))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.InformationalResponse):
                continue
            if event is not h11.NEED_DATA:
                return event
            connection.receive_data(await reader.read(PIECE))
    except (OSError, h11.RemoteProtocolError):
        raise UpstreamError("its answer is not HTTP, or broke off") from None


async def _pieces(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while isinstance(event := await _next(connection, reader), h11.Data):
        yield bytes(event.data)
