"""Hostile programs: none passes, none touches anything, none survives, and the harness goes on.

Each program defines f, and its tests hold only if the attack succeeded. They run on every rung, as root and as nobody.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from codex_ml.core.errors import UserError
from codex_ml.sandbox.ladder import RUNGS, open_sandbox

AS_USER = Path(__file__).with_name("as_user.py")
SUCCEEDS = "assert f() is True"
FORGES = "assert f() == 42"


MISTAKE = re.compile("(SyntaxError|NameError|TypeError|AttributeError)")  # the attack itself would be wrong


@dataclass(frozen=True)
class Attack:
    """A program, the tests that hold if it succeeds, and the verdicts that are right."""

    name: str
    solution: str
    verdicts: tuple[str, ...]
    tests: str = SUCCEEDS
    says: str = ""


def attack(name: str, solution: str, *verdicts: str, tests: str = SUCCEEDS, says: str = "") -> Attack:
    return Attack(name, solution, verdicts, tests, says)


# What the programs know of the machine: real places, so that a hole in the sandbox would be found.
HEADER = """
import ctypes, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
"""

REACH = [
    attack("read a file of the harness", "def f(): return open(SECRET).read() == 'bait'", "crashed", says="FileNotFoundError"),
    attack("list a folder of the harness", "def f(): return bool(os.listdir(os.path.dirname(SECRET)))", "crashed", says="FileNotFoundError"),
    attack("read the users of the machine", "def f(): return 'root' in open('/etc/passwd').read()", "crashed"),
    attack("read its own environment", "def f(): return 'BAIT' in os.environ or b'bait' in open('/proc/self/environ', 'rb').read()", "crashed"),
    attack("read the environment of the harness", "def f(): return b'BAIT' in open(f'/proc/{HARNESS_PID}/environ', 'rb').read()", "crashed"),
    attack("read the environment by getenv", "libc.getenv.restype = ctypes.c_char_p\ndef f(): return libc.getenv(b'BAIT') == b'bait'", "wrong"),
    attack("write a file of the harness", "def f():\n    open(SECRET, 'w').write('changed')\n    return True", "crashed"),
    attack("follow a symbolic link out of the work folder", "def f():\n    os.symlink(SECRET, 'link')\n    open('link', 'a').write('changed')\n    return True", "crashed"),
    attack("hard-link a file into the work folder", "def f():\n    os.link(SECRET, 'link')\n    return True", "crashed"),
    attack("climb out by relative paths", "def f(): return open('../' * 20 + SECRET[1:]).read() == 'bait'", "crashed"),
    attack("escape by chroot", "def f():\n    os.mkdir('cell')\n    os.chroot('cell')\n    os.chdir('../' * 20)\n    return True", "crashed"),
    attack("connect to a TCP port of the machine", "def f():\n    socket.create_connection(('127.0.0.1', PORT), 1)\n    return True", "crashed"),
    attack("connect to an abstract socket", "def f():\n    socket.socket(socket.AF_UNIX).connect('\\0' + ABSTRACT)\n    return True", "crashed"),
    attack("reach the host of the virtual machine", "def f():\n    socket.socket(40, socket.SOCK_STREAM)\n    return True", "crashed", says="PermissionError"),
    attack("open a netlink socket", "def f():\n    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n    return True", "crashed", says="PermissionError"),
    attack("call io_uring_setup", "def f():\n    room = ctypes.create_string_buffer(240)\n    return libc.syscall(425, 8, room) >= 0", "wrong"),
    attack("trace another process", "def f(): return libc.ptrace(16, 1, 0, 0) == 0 or libc.ptrace(0, 0, 0, 0) == 0", "wrong"),
    attack("read the memory of process 1", "def f():\n    room = ctypes.create_string_buffer(16)\n    part = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8)\n    return libc.process_vm_readv(1, part, 1, part, 1, 0) > 0 or ctypes.get_errno() != 1", "wrong"),
    attack("write its own memory by /proc", "def f():\n    open('/proc/self/mem', 'r+b')\n    return True", "crashed"),
    attack("call bpf, keyctl, userfaultfd, perf", "def f(): return any(libc.syscall(n, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1 for n in NUMBERS)", "wrong"),
    attack("mount a file system", "def f():\n    os.mkdir('here')\n    return libc.mount(b'tmpfs', b'here', b'tmpfs', 0, None) == 0", "wrong"),
    attack("mount by the new calls", "def f(): return libc.syscall(430, b'tmpfs', 0) >= 0 or libc.syscall(428, -100, b'/', 1) >= 0", "wrong"),
    attack("unmount the library", "def f(): return libc.umount2(os.fsencode(sys.base_prefix) + b'/lib', 2) == 0", "wrong"),
    attack("make namespaces", "def f(): return any(libc.unshare(flag) == 0 for flag in (0x10000000, 0x20000, 0x40000000))", "wrong"),
    attack("make a namespace by clone", "def f(): return libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0) >= 0", "wrong"),
    attack("become root", "def f():\n    os.setuid(0)\n    return True", "crashed", says="PermissionError|OSError"),
    attack("change the interpreter", "def f():\n    os.chmod(os.path.realpath(sys.executable), 0o777)\n    return True", "crashed"),
    attack("overwrite the interpreter", "def f():\n    open(os.path.realpath(sys.executable), 'ab')\n    return True", "crashed"),
    attack("overwrite a module of the library", "def f():\n    open(os.__file__, 'a')\n    return True", "crashed"),
    attack("add a module to the library", "def f():\n    open(os.path.dirname(os.__file__) + '/sitecustomize.py', 'w')\n    return True", "crashed"),
    attack("make a device", "def f():\n    os.mknod('disk', 0o60666, os.makedev(254, 0))\n    return True", "crashed"),
    attack("signal the harness", "def f():\n    os.kill(HARNESS_PID, 0)\n    return True", "crashed", says="ProcessLookupError|PermissionError"),
    attack("signal everything", "def f():\n    os.kill(-1, 9)\n    return False", "wrong", "crashed"),
    attack("interrupt process 1", "def f():\n    os.kill(1, 2)\n    time.sleep(0.1)\n    return False", "wrong", "crashed"),
    attack("kill process 1", "def f():\n    os.kill(1, 9)\n    time.sleep(0.1)\n    return False", "wrong", "crashed"),
    attack("type into the terminal", "def f():\n    import fcntl\n    fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, b'x')\n    return True", "crashed"),
    attack("type into stdin", "def f():\n    import fcntl\n    fcntl.ioctl(0, 0x5412, b'x')\n    return True", "crashed", says="PermissionError"),
    attack("hide memory in a memory file", "def f():\n    os.memfd_create('hidden')\n    return True", "crashed", says="PermissionError"),
    attack("hide memory in shared memory", "def f(): return libc.shmget(0, 1 << 20, 0o1600) >= 0", "wrong"),
    attack("raise its limits", "def f():\n    import resource\n    resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6))\n    return True", "crashed", says="ValueError"),
]  # fmt: skip

FORGE = [
    attack("end with success while it loads", "os._exit(0)", "crashed", tests=FORGES, says="it ended before it answered"),
    attack("end with success in a call", "def f(): os._exit(0)", "crashed", tests=FORGES, says="it ended before it answered"),
    attack("exit while it loads", "sys.exit(0)", "crashed", tests=FORGES, says="SystemExit: 0"),
    attack("exit in a call", "def f(): sys.exit(0)", "crashed", tests=FORGES, says="SystemExit: 0"),
    attack("become another program", "def f(): os.execv(sys.executable, ['python', '-c', 'print(42)'])", "crashed", tests=FORGES),
    attack("walk the frames to the verdict", "def f():\n    frame, seen = sys._getframe(), []\n    while frame:\n        seen += [frame.f_globals, frame.f_locals]\n        frame = frame.f_back\n    return any('nonce' in names or 'tests' in names or 'RemoteSolution' in names for names in seen)", "wrong"),
    attack("search all objects for the tests", "import gc\ndef f():\n    word = ' '.join(['assert', 'f()', 'is', 'True'])\n    return any(word in text for o in gc.get_objects() if isinstance(o, dict) for text in list(o.values()) if isinstance(text, str))", "wrong"),
    attack("import the tester", "def f():\n    from codex_ml.sandbox import tester, guest\n    guest.send(guest.RESULT, {'nonce': '0' * 32})\n    return True", "crashed"),
    attack("lie by __eq__", "class Liar:\n    __eq__ = lambda self, other: True\ndef f(): return Liar()", "wrong", tests=FORGES, says="it returned a value of the type Liar"),
    attack("lie by __eq__ of a number", "class Liar(int):\n    __eq__ = lambda self, other: True\n    __hash__ = int.__hash__\ndef f(): return Liar(7)", "wrong", tests=FORGES),
    attack("patch the built-ins", "import builtins\nbuiltins.AssertionError = builtins.isinstance = builtins.type = builtins.len = lambda *_: 42\ndef f(): return 7", "wrong", "crashed", tests=FORGES),
    attack("patch the sender", "from codex_ml.sandbox import guest\nguest.send = lambda to, message: os.write(to, b'{\"nonce\": \"0\", \"verdict\": \"passed\"}\\n')\ndef f(): return 7", "crashed", tests=FORGES, says="its answer is not readable"),
    attack("write a verdict to every file", "for fd in range(1024):\n    try: os.write(fd, b'{\"started\": true}\\n{\"verdict\": \"passed\", \"nonce\": \"\"}\\n')\n    except OSError: pass\ndef f(): return 7", "crashed", tests=FORGES),
    attack("look for the nonce in every file", "def f():\n    found = b''\n    for fd in range(3, 64):\n        try:\n            os.set_blocking(fd, False)\n            found += os.read(fd, 1 << 16)\n        except OSError: pass\n    return b'nonce' in found", "wrong"),
    attack("find a descriptor of others", "import fcntl\ndef f():\n    found = 0\n    for fd in range(5, 5000):\n        try: found += fcntl.fcntl(fd, fcntl.F_GETFD) >= 0\n        except OSError: pass\n    return found > 0", "wrong"),
    attack("read what it was started with", "def f():\n    os.lseek(0, 0, 0)\n    read = os.read(0, 1 << 20)\n    return any(word[::-1] in read for word in (b'ecnon', b'eurT si )(f tressa'))", "wrong"),
    attack("end a loop of the tests by StopIteration", "def f(): raise StopIteration", "crashed", tests="assert all(map(lambda _: f() == 42, range(3)))"),
    attack("answer in advance", "for number in range(1, 9):\n    os.write(4, b'{\"id\": %d, \"value\": 7}\\n' % number)\ndef f(): return 7", "wrong", "crashed", tests=FORGES),
    attack("answer with a tag that names a class", "os.write(4, b'{\"id\": 0, \"value\": null}\\n{\"id\": 1, \"value\": {\"class\": \"Any\"}}\\n')\ndef f(): return 7", "crashed", tests=FORGES, says="its answer is not readable"),
    attack("answer with a huge line", "def f(): return 'x' * 200_000", "output", tests=FORGES, says="an answer is too long"),
    attack("answer with deep JSON", "os.write(4, b'{\"id\": 0, \"value\": null}\\n{\"id\": 1, \"value\": ' + b'[' * 30_000)\nos.write(4, b']' * 30_000 + b'}\\n')\ndef f(): return 7", "crashed", tests=FORGES),
    attack("answer with a value that holds itself", "def f():\n    value = []\n    value.append(value)\n    return value", "wrong", tests=FORGES, says="it returned a value nested more than 64 deep"),
    attack("raise what the tests do not expect", "class Odd(BaseException):\n    def __str__(self): raise self\ndef f(): raise Odd", "crashed", tests="try: f()\nexcept Exception: pass", says="Odd"),
    attack("break each answer and hope for a handler", "os.close(4)\ndef f(): return 42", "crashed", tests="try: f()\nexcept BaseException: pass"),
    attack("raise an assertion of its own", "def f(): raise AssertionError('fine')", "crashed", tests=FORGES, says="AssertionError: fine"),
    attack("replace its streams by pipes", "def f():\n    a, b = os.pipe()\n    os.dup2(b, 4)\n    os.dup2(a, 3)\n    return 7", "crashed", "wrong", tests=FORGES),
]  # fmt: skip

EXHAUST = [
    attack("count how many processes it can start", "def f():\n    n = 0\n    while n < 500:\n        if not os.fork(): signal.pause()\n        n += 1\n    return True", "crashed", says="BlockingIOError"),
    attack("let the kernel forget its children", "def f(): signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "crashed", says="PermissionError"),
    attack("let it forget them by a handler", "def f(): signal.signal(signal.SIGCHLD, lambda *_: None)", "crashed", says="PermissionError"),
    attack("start a program and wait for it", "import subprocess\ndef f(): return subprocess.run([sys.executable, '-c', 'print(1)']).returncode != 0", "wrong", "crashed"),
    attack("start many threads", "import threading\ndef f():\n    for _ in range(500): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    return True", "crashed", says="RuntimeError: can't start new thread"),
    attack("take much memory at once", "def f(): return bool(bytearray(4 << 30))", "memory", says="MemoryError"),
    attack("take memory in many processes", "def f():\n    for _ in range(6):\n        if not os.fork():\n            room = bytearray(b'x') * (100 << 20)\n            signal.pause()\n    signal.pause()", "memory"),
    attack("print without end", "def f():\n    while True: print('x' * 1000)", "output"),
    attack("fill stderr without end", "def f():\n    while True: os.write(2, bytes(1000))", "output"),
    attack("close its streams, then print", "def f():\n    for fd in (0, 1, 2): os.close(fd)\n    print('x', flush=True)\n    return True", "crashed", says="OSError"),
    attack("write a huge file", "def f():\n    with open('big', 'wb') as file:\n        for _ in range(100): file.write(bytes(1 << 20))\n    return True", "crashed", says="OSError"),
    attack("fill the work folder", "def f():\n    for n in range(100): open(f'part{n}', 'wb').write(bytes(1 << 20))\n    return True", "crashed", says="OSError: .*No space left"),
    attack("make a million empty files", "def f():\n    libc.prctl(4, 0, 0, 0, 0)\n    for n in range(10 ** 6): os.close(os.open(str(n), os.O_CREAT))\n    return True", "memory", says="more than 10000 files"),
    attack("make a million links", "def f():\n    open('x', 'w').close()\n    for n in range(10 ** 6): os.link('x', str(n))\n    return True", "memory", says="more than 10000 files"),
    attack("open many files", "def f(): return len([open('/dev/null') for _ in range(2000)]) == 2000", "crashed", says="Too many open files"),
    attack("delete its work folder", "import shutil\ndef f():\n    shutil.rmtree('/work', ignore_errors=True)\n    os.chdir('/')\n    return not os.path.exists('/work')", "wrong"),
    attack("leave a pipe with a name in the work folder", "def f():\n    os.mkfifo('pipe')\n    return False", "wrong"),
    attack("leave a daemon behind", "def f():\n    if not os.fork():\n        os.setsid()\n        if not os.fork():\n            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n            time.sleep(600)\n        os._exit(0)\n    return False", "wrong"),
    attack("overflow the stack of C", "sys.setrecursionlimit(10**9)\ndef f():\n    value = []\n    for _ in range(200_000): value = [value]\n    return bool(repr(value))", "crashed", says="it ended before it answered"),
    attack("die by a signal", "def f(): os.kill(os.getpid(), 11)", "crashed", says="it ended before it answered"),
]  # fmt: skip

COMPUTE = [
    attack("compute without end", "def f():\n    while True: pass", "time", says="more than 0.2 s of CPU time"),
    attack("catch every signal and go on", "for n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef f():\n    while True: pass", "time", says="more than 0.2 s of CPU time"),
    attack("compute in children that nobody would count", "def f():\n    try: signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n    except PermissionError: pass\n    for _ in range(150):\n        child = os.fork()\n        if not child:\n            start = time.process_time()\n            while time.process_time() < start + 0.008: pass\n            os._exit(0)\n        os.waitpid(child, 0)\n    return True", "time", says="more than 0.2 s of CPU time"),
    attack("fork without end", "def f():\n    while True:\n        try: os.fork()\n        except OSError: pass", "time", says="more than 0.2 s of CPU time"),
    attack("make the tests compute without end", "def f(): return 10 ** 9", "time", tests="for _ in range(f()): pass", says="more than 0.2 s of CPU time"),
]  # fmt: skip

WAIT = [
    attack("stop itself", "def f(): os.kill(os.getpid(), signal.SIGSTOP)", "time", says="it did not end within 0.5 s"),
    attack("answer after the time is over", "def f():\n    time.sleep(60)\n    return 42", "time", tests=FORGES, says="it did not end within 0.5 s"),
]  # fmt: skip

LIMITS = {"memory_bytes": 384 << 20, "processes": 12, "file_bytes": 4 << 20, "output_bytes": 1 << 16}
GROUPS = [
    ([*REACH, *FORGE, *EXHAUST], {"cpu_seconds": 10.0, "wall_seconds": 120.0, **LIMITS}),
    (COMPUTE, {"cpu_seconds": 0.2, "wall_seconds": 120.0, **LIMITS}),
    (WAIT, {"cpu_seconds": 10.0, "wall_seconds": 0.5, **LIMITS}),
]
ATTACKS = [attack for group, _ in GROUPS for attack in group]


@dataclass
class Bait:
    """A file, a port and a socket that any program of this machine can reach."""

    secret: Path
    port: int
    abstract: str
    servers: tuple[socket.socket, ...]

    def header(self) -> str:
        numbers = (321, 250, 323, 298) if os.uname().machine == "x86_64" else (280, 219, 282, 241)
        known = {"SECRET": str(self.secret), "PORT": self.port, "ABSTRACT": self.abstract, "NUMBERS": numbers}
        return HEADER + "\n".join(f"{name} = {value!r}" for name, value in known.items()) + "\nHARNESS_PID = @PID@\n"

    def visitors(self) -> int:
        """How many connections were made."""
        count = 0
        for server in self.servers:
            server.settimeout(0)
            with suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()
                    count += 1
        return count


@pytest.fixture(scope="module")
def bait() -> Iterator[Bait]:
    name = f"codex-ml-{os.getpid()}"
    with (
        TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0{name}")
        abstract.listen()
        secret = Path(folder, "secret")
        secret.write_text("bait")
        Path(folder).chmod(0o755)  # not pytest's own folder, which nobody cannot enter
        yield Bait(secret, server.getsockname()[1], name, (server, abstract))


def run_as(user: str, rung: str, header: str, groups: list[dict[str, object]]) -> dict[str, object]:
    """What as_user.py prints; a visible skip where this machine cannot run the rung or become the user."""
    if user != "nobody" and os.getuid() != 0:
        pytest.skip("these tests do not run as root")
    try:
        open_sandbox(rung)
    except UserError as error:
        pytest.skip(str(error))
    task = {"user": user, "rung": rung, "header": header, "groups": groups}
    done = subprocess.run(
        [sys.executable, str(AS_USER)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env={**os.environ, "BAIT": "bait"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert found["rung"] == rung
    assert (found["user"] == 0) == (user != "nobody")
    return found


EVERY = [(rung, user) for rung in RUNGS for user in ("root", "nobody")]
FAST = (
    ("bwrap-system", "root"),
    ("bwrap-wheel", "nobody"),
    ("namespaces", "root"),
)  # each rung and each user; a run takes half a minute


@pytest.fixture(
    scope="module",
    params=[pytest.param(one, id=" as ".join(one), marks=[pytest.mark.slow] * (one not in FAST)) for one in EVERY],
)
def run(request: pytest.FixtureRequest, bait: Bait) -> dict[str, object]:
    """All attacks on one rung, as one user."""
    rung, user = request.param
    groups = [{"programs": [(a.solution, a.tests) for a in group], "limits": limits} for group, limits in GROUPS]
    return run_as(user, rung, bait.header(), groups)


@pytest.mark.parametrize("rung", RUNGS)
def test_root_without_the_right_to_mount_gets_the_same_sandbox(rung: str) -> None:
    honest = ("def f(): return os.getuid() != 0", SUCCEEDS)
    reads = ("def f(): return 'root' in open('/etc/passwd').read()", SUCCEEDS)
    groups = [{"programs": [honest, reads], "limits": GROUPS[0][1]}]
    found = run_as("root without mounts", rung, HEADER, groups)
    assert [verdict for verdict, *_ in found["outcomes"]] == ["passed", "crashed"]
    assert found["survivors"] == 0


def test_no_attack_succeeds_touches_anything_or_survives(run: dict[str, object], bait: Bait) -> None:
    """One test, because a worker of pytest that has another test of the same run would run all attacks again."""
    outcomes = run["outcomes"]
    assert len(outcomes) == len(ATTACKS) > 80
    odd = [
        (attack.name, verdict, detail)
        for attack, (verdict, detail, _) in zip(ATTACKS, outcomes, strict=True)
        if verdict not in attack.verdicts or not re.search(attack.says, detail) or MISTAKE.match(detail)
    ]
    assert odd == [], "\n".join(map(str, odd))
    assert bait.visitors() == 0
    assert bait.secret.read_text() == "bait"
    assert sorted(path.name for path in bait.secret.parent.iterdir()) == ["secret"]
    assert run["survivors"] == 0


WITHOUT = (
    "read a file of the harness", "list a folder of the harness", "read the users of the machine", "read its own environment",
    "read the environment of the harness", "read the environment by getenv", "climb out by relative paths",
    "connect to a TCP port of the machine", "connect to an abstract socket", "open a netlink socket",
    "write its own memory by /proc", "hide memory in a memory file", "hide memory in shared memory", "lie by __eq__",
    "lie by __eq__ of a number",
)  # fmt: skip


def test_the_same_programs_succeed_without_the_sandbox(bait: Bait) -> None:
    """The control: these attacks are real ones, so that their failure says something."""
    attacks = [attack for attack in ATTACKS if attack.name in WITHOUT]
    assert len(attacks) == len(WITHOUT)
    header = bait.header().replace("@PID@", "os.getpid()")
    for attack in attacks:
        program = f"{header}\n{attack.solution}\n{attack.tests}\n"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, env={"BAIT": "bait"}
        )
        assert done.returncode == 0, (attack.name, done.stderr)
    assert bait.visitors() == 2
