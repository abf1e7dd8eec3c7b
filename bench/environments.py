"""Environments of the peers: each in a venv of its own, by digest, beside Triton's and not in the repository.

MLflow and DVC bring a hundred packages that the platform must not see, and measuring them in our own environment would
measure our choice of versions. `peers/*.txt` are lock files, made from `peers/*.in` by
`uv pip compile --python-version 3.11 --generate-hashes --no-header`.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from penstock.backing.triton_environment import build_once
from penstock.errors import Unavailable
from penstock.runtime.settings import data_directory

PEERS = Path(__file__).parent / "peers"


def peer_python(name: str) -> Path:
    """The interpreter of the peer `name`; makes its environment first (a minute or two), if it is not there.

    Raises Unavailable with pip's last lines if that fails.
    """
    lock = PEERS / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = data_directory() / f"bench-{name}-{digest}"
    if not folder.exists():
        print(f"bench: making an environment for {name} in {folder}", file=sys.stderr, flush=True)
        build_once(folder, lambda draft: _build(draft, lock))
    return folder / "bin" / "python"


def version_of(name: str, package: str = "") -> str:
    """The locked version of a package (by default the one that the peer is named after)."""
    wanted = package or name
    for line in (PEERS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        found, equals, rest = line.partition("==")
        if equals and found == wanted:
            return rest.split()[0]
    raise LookupError(f"{wanted} is not in {name}.txt")


def _build(draft: Path, lock: Path) -> None:
    _run([sys.executable, "-m", "venv", str(draft)])
    options = ["--disable-pip-version-check", "--require-hashes", "--no-deps", "--progress-bar", "off", "--quiet"]
    _run([str(draft / "bin" / "python"), "-m", "pip", "install", *options, "--requirement", str(lock)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", check=False)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(command)}` failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))
