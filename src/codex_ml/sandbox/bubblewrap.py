"""The command line of bubblewrap (bwrap) for one program. Used by: supervisor.

CVE-2026-87766 of version 0.11.0 needs a mount below a folder that a program could write in an earlier run. There is
none here: the work folder is a new memory file system, and everything else is read-only.
"""

from __future__ import annotations

from codex_ml.sandbox.inventory import NULL, WORK, Inventory


def command(inventory: Inventory, folder_bytes: int, filter_descriptor: int) -> list[str]:
    """Return the arguments of bwrap up to the program, without bwrap itself.

    No /proc and no /dev beyond /dev/null: judged programs need neither.

    Args:
        folder_bytes: size of the work folder.
        filter_descriptor: an open file with the seccomp filter; bwrap reads it to the end.
    """
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for outside, inside in inventory.binds:
        arguments += ["--ro-bind", outside, inside]
    for says, path in inventory.links:
        arguments += ["--symlink", says, path]
    arguments += ["--dev-bind", NULL, NULL, "--size", str(folder_bytes), "--tmpfs", WORK, "--chdir", WORK]
    return [*arguments, "--remount-ro", "/", "--setenv", "PYTHONHASHSEED", "0", "--seccomp", str(filter_descriptor)]
