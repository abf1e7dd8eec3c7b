"""Becomes a managed server: records its own identity, then execs.

The record is written by the process that it describes, before the server's first instruction, so there is no instant
at which a killed parent leaves a server behind that no file knows. The lock travels through exec: whoever finds it
held knows that the server (or a child of it) still runs, and a second one cannot start on the same data.

Run as `python -I -S _launch.py <json>`; only the standard library, and as little of it as will do.
"""

import fcntl
import json
import os
import sys

ALREADY_RUNNING = 75  # EX_TEMPFAIL
PR_SET_PDEATHSIG = 1
SIGKILL = 9


def main() -> None:
    plan = json.loads(sys.argv[1])
    if not os.access(plan["argv"][0], os.X_OK):
        sys.exit(f"{plan['argv'][0]} is not there, or may not be executed")
    try:
        lock = take(plan["lock"])
    except BlockingIOError:
        sys.exit(ALREADY_RUNNING)
    os.set_inheritable(lock, True)
    write_record(plan["record"], plan["marker"], plan["facts"], lock)
    if plan["sandbox"]:
        sys.path.insert(0, plan["sandbox"]["modules"])  # for those of ours that need the standard library only
        from penstock.runner.isolation import confine

        if not confine(**plan["sandbox"]["confine"]):
            sys.stderr.write("[penstock] this server runs as the platform's own user: there is no boundary\n")
    if plan["parent"]:  # now, since a change of user would undo it
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != plan["parent"]:
            sys.exit(1)
    os.execve(plan["argv"][0], plan["argv"], os.environ)


def take(path: str) -> int:
    """The descriptor of a lock file, locked; raises BlockingIOError if somebody has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock


def write_record(path: str, marker: str, facts: dict[str, "str | int"], lock: int) -> None:
    """Record this process, and the very file that it holds locked: a copy of the home has another."""
    file = os.fstat(lock)
    with open("/proc/self/stat", encoding="utf-8") as stat:
        started = int(stat.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as boot:
        identity = {"pid": os.getpid(), "started": started, "boot_id": boot.read().strip(), "marker": marker}
    draft = path + ".new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as record:
        json.dump({**identity, "lock": [file.st_dev, file.st_ino], "facts": facts}, record)
    os.replace(draft, path)


if __name__ == "__main__":
    main()
