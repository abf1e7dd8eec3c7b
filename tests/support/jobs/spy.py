"""A job that looks around: `spy.py HOME PIDS PORTS HELLO`; what it finds goes into found.json among its outputs."""

import json
import os
import re
import socket
import sys

HOME, PIDS, PORTS, HELLO = sys.argv[1], sys.argv[2].split(","), json.loads(sys.argv[3]), bytes.fromhex(sys.argv[4])
OWN = (os.path.dirname(os.environ["PENSTOCK_OUTPUT_DIR"]), os.environ["PENSTOCK_CHECKPOINT_DIR"])
# A signed token, a private key, a NATS seed.
CREDENTIAL = re.compile(rb"eyJ[A-Za-z0-9_-]{20,}[.]eyJ[A-Za-z0-9_-]{20,}|PRIVATE KEY|SU[A-Z0-9]{50,}")
KEPT = ("token", "url", "keys/0001.pem", "project/secrets.key", "nats/authority/authority.json", "nats/server.conf")

readable: list[str] = []
writable: list[str] = []
credentials: list[str] = []


def look(path: str) -> bytes:
    """What is in a file; nothing if that is not for this user."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def search(text: bytes, where: str) -> None:
    """Note a credential."""
    if CREDENTIAL.search(text):
        credentials.append(where)


def files() -> None:
    """The platform's home."""
    for root, _, names in os.walk(HOME):
        if root.startswith(OWN):
            continue
        readable.extend(path for name in names if os.access(path := os.path.join(root, name), os.R_OK))
        if os.access(root, os.W_OK) and not any(own.startswith(root) for own in OWN):
            writable.append(root)
    readable.extend(name for name in KEPT if look(os.path.join(HOME, name)))


def processes() -> None:
    """Everybody's arguments, which are public, and environments and descriptors, which are not."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        search(look(f"/proc/{pid}/cmdline"), f"arguments of {pid}")
        if int(pid) == os.getpid():
            continue
        if look(f"/proc/{pid}/environ"):
            readable.append(f"environment of {pid}")
        try:
            os.listdir(f"/proc/{pid}/fd")
            readable.append(f"descriptors of {pid}")
        except OSError:
            continue


def signals() -> list[str]:
    """Those that could be killed."""
    able = []
    for pid in PIDS:
        try:
            os.kill(int(pid), 0)
            able.append(pid)
        except OSError:
            continue
    return able


def answer(port: int, message: bytes) -> str:
    """What a server of this machine says to a message."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.sendall(message)
            peer.settimeout(3)
            return peer.recv(300).decode("latin1")
    except OSError:
        return ""


def order(path: str) -> bytes:
    """A request of Envoy's admin interface."""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def inherited() -> list[str]:
    """Open descriptors beyond the usual three."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and os.path.exists(f"/proc/self/fd/{number}"):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def main() -> None:
    """Look everywhere."""
    descriptors = inherited()
    files()
    processes()
    for name, value in os.environ.items():
        search(value.encode(), f"own variable {name}")
    for become in (os.setuid, os.setgid):
        try:
            become(0)
            readable.append(become.__name__)
        except OSError:
            continue
    found = {
        "uid": os.getuid(),
        "readable": readable,
        "writable": writable,
        "credentials": credentials,
        "environment": dict(os.environ),
        "signals": signals(),
        "descriptors": descriptors,
        "ports": {
            "mongodb": answer(PORTS["mongodb"], HELLO),
            "nats": answer(PORTS["nats"], b'CONNECT {"verbose":true}\r\nPUB penstock.x 1\r\nx\r\n'),
            "edge": answer(PORTS["envoy"], b"GET /v1/projects/default HTTP/1.1\r\nhost: x\r\n\r\n"),
            "quit": answer(PORTS["admin"], order("/quitquitquit")),
            "fail": answer(PORTS["admin"], order("/healthcheck/fail")),
        },
    }
    with open(os.path.join(os.environ["PENSTOCK_OUTPUT_DIR"], "found.json"), "w") as file:
        json.dump(found, file)
    print("looked around as", os.getuid())


main()
