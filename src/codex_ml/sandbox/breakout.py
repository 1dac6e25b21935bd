"""A program that tries to break out of the sandbox, and what it must report for the sandbox to be used.

The probe fails closed: a rung is used only if the program ran, made every attempt and reports that each failed.

Used by: ladder.
"""

from __future__ import annotations

# Each attempt is a function that raises OSError when the sandbox holds. The caller sets SECRET, PORT and SUPERVISOR.
PROGRAM = """
import ctypes, json, os, signal, socket, sys

def read_a_file(): open(SECRET).read()
def list_the_folder(): os.listdir(os.path.dirname(SECRET))
def read_passwords(): open("/etc/passwd").read()
def write_to_the_library(): open(os.__file__, "a")
def write_to_the_root(): open("/written", "w")
def write_to_the_interpreter(): open(os.path.realpath(sys.executable), "ab")
def change_the_interpreter(): os.chmod(os.path.realpath(sys.executable), 0o777)
def connect(): socket.create_connection(("127.0.0.1", PORT), 1).close()
def make_a_socket(): socket.socket(socket.AF_UNIX).close()
def see_other_processes(): os.listdir("/proc")
def signal_the_supervisor(): os.kill(SUPERVISOR, 0)
def become_root(): os.setuid(0)
def make_a_namespace():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")
def start_too_many():
    children = []
    try:
        for _ in range(200):
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
def fill_the_memory():
    try:
        bytearray(4 << 30)
    except MemoryError:
        raise OSError("memory")
def fill_the_work_folder():
    try:
        for number in range(100):
            with open(f"part{number}", "wb") as file:
                file.write(bytes(1 << 19))
    finally:
        for name in os.listdir("."):
            os.remove(name)

def leave_a_process_behind():
    if not os.fork():
        os.setsid()
        if not os.fork():
            signal.pause()
        os._exit(0)

escaped = []
attempts = [value for name, value in list(globals().items()) if callable(value) and name != "leave_a_process_behind"]
for attempt in attempts:
    try:
        attempt()
    except OSError:
        continue
    escaped.append(attempt.__name__)
with open("note", "w") as file:  # the program starts in its work folder
    file.write("the work folder can be written")
leave_a_process_behind()
print(json.dumps({"tried": len(attempts), "escaped": escaped, "user": os.getuid()}))
"""
ATTEMPTS = PROGRAM.count("\ndef ") - 1
