"""No stage but fetch reaches another machine: by a connection, a datagram, a question to a name server, or a worker."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from codex_ml.core.errors import CheckFailed
from codex_ml.core.network_guard import refuse_network

# Each call needs no network: the hook refuses it, or this machine alone answers.
PROGRAM = """
import socket, sys
from codex_ml.core.errors import CheckFailed
from codex_ml.core.network_guard import refuse_network
sys.addaudithook(refuse_network)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) if socket.has_ipv6 else udp
calls = {
    "connect": lambda: socket.socket().connect(("192.0.2.1", 443)),
    "connect_ex": lambda: socket.socket().connect_ex(("192.0.2.1", 443)),
    "create_connection": lambda: socket.create_connection(("192.0.2.1", 443), timeout=1),
    "connect of UDP": lambda: udp.connect(("192.0.2.1", 53)),
    "sendto": lambda: udp.sendto(b"x", ("192.0.2.1", 53)),
    "sendto with flags": lambda: udp.sendto(b"x", 0, ("192.0.2.1", 53)),
    "sendmsg": lambda: udp.sendmsg([b"x"], [], 0, ("192.0.2.1", 53)),
    "sendto of IPv6": lambda: six.sendto(b"x", ("2001:db8::1", 53)),
    "getaddrinfo": lambda: socket.getaddrinfo("example.invalid", 443),
    "gethostbyname": lambda: socket.gethostbyname("example.invalid"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("example.invalid"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("192.0.2.1"),
    "getnameinfo": lambda: socket.getnameinfo(("192.0.2.1", 80), 0),
    "bind": lambda: socket.socket().bind(("0.0.0.0", 0)),
    "bind to all": lambda: udp.bind(("", 0)),
}
for name, call in calls.items():
    try:
        call()
    except CheckFailed as error:
        print(name, "|", error)
    except Exception as error:
        print(name, "| passed:", type(error).__name__)
    else:
        print(name, "| passed")
"""


def test_every_call_that_leaves_this_machine_is_refused(run_python):
    done = run_python("-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 15
    assert [line for line in lines if "this run tried to " not in line] == []
    assert lines[4] == "sendto | this run tried to reach '192.0.2.1'; only fetch may use the network"
    assert lines[13] == "bind | this run tried to wait for other machines on '0.0.0.0'; only fetch may use the network"


def sockets(kind, family=socket.AF_INET):
    with closing(socket.socket(family, kind)) as one:
        return one


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.getaddrinfo", ("localhost", 80)),
        ("socket.getaddrinfo", (b"localhost", 80)),
        ("socket.getaddrinfo", (None, 0)),
        ("socket.gethostbyname", ("127.0.0.1",)),
        ("socket.connect", (sockets(socket.SOCK_STREAM), ("127.0.0.1", 443))),
        ("socket.connect", (sockets(socket.SOCK_STREAM), ("::1", 443, 0, 0))),
        ("socket.connect", (sockets(socket.SOCK_STREAM, socket.AF_UNIX), "/run/some.socket")),
        ("socket.sendmsg", (sockets(socket.SOCK_STREAM), None)),
        ("socket.bind", (sockets(socket.SOCK_STREAM), ("127.0.0.1", 0))),
        ("open", ("file",)),
    ],
)
def test_this_machine_can_talk_to_itself(event, arguments):
    refuse_network(event, arguments)


def test_a_text_that_is_no_address_of_this_machine_is_refused():
    with pytest.raises(CheckFailed, match=r"^this run tried to reach '/elsewhere'; only fetch may use the network$"):
        refuse_network("socket.connect", (None, "/elsewhere"))
