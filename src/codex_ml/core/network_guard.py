"""Refuse the network: an audit hook for the sockets that Python code opens. A process cannot take it back.

It covers this process and the worker processes of core.parallel; the children of core.child have a stricter one. It
does not see libraries that call the kernel themselves, nor other programs, such as a compiler or `git status`.

Used by: core.stage, core.parallel, cli.measure_model, `codex-ml track`.
"""

from __future__ import annotations

import socket
from typing import Any

from codex_ml.core.errors import CheckFailed

LOCAL = (None, "localhost", "127.0.0.1", "::1")
ON_THIS_MACHINE = (socket.AF_UNIX, getattr(socket, "AF_NETLINK", socket.AF_UNIX))  # the second one is Linux's
NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")  # they ask a name server
ADDRESSES = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: no name is looked up, and nothing is sent to another machine or received from one.

    Raises:
        CheckFailed: names the other machine.
    """
    if event in NAMES:
        host = arguments[0]
    elif event in ADDRESSES:
        address = arguments[1]
        if address is None or getattr(arguments[0], "family", None) in ON_THIS_MACHINE:
            return  # a socket that is connected has no address here; the hook has seen the one of its connection
        host = address[0] if isinstance(address, tuple) and address else address
    elif event == "socket.getnameinfo":
        host = arguments[0][0]
    else:
        return
    if (host.decode("ascii", "replace") if isinstance(host, bytes) else host) not in LOCAL:
        what = "wait for other machines on" if event == "socket.bind" else "reach"
        raise CheckFailed(f"this run tried to {what} {host!r}; only fetch may use the network")
