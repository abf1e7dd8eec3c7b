"""Where Envoy's configuration lies on disk, and the one function that writes it.

Envoy reads every file by itself and re-reads it when a new one is moved over it. Each file has one owner, so the
platform's starter (base), the project service (keys, denylist) and the serving service (endpoints) never overwrite each
other.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """The files of one Envoy, all below `root` (an absolute path)."""

    root: Path

    def prepare(self) -> None:
        """Make the folders; keys and tokens' claims pass through here, so nobody else may read them."""
        for path in (self.root, self.members):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)

    @property
    def bootstrap(self) -> Path:
        """What Envoy is started with: admin address, where everything else is. Owner: the starter."""
        return self.root / "bootstrap.json"

    @property
    def listeners(self) -> Path:
        """Ports and filters. Owner: the starter."""
        return self.root / "lds.json"

    @property
    def routes(self) -> Path:
        """Routes, the same however many endpoints there are. Owner: the starter."""
        return self.root / "rds.json"

    @property
    def services(self) -> Path:
        """Where our services listen. Owner: the starter."""
        return self.root / "services.json"

    @property
    def jwt(self) -> Path:
        """The keys that tokens are checked with. Owner: the project service."""
        return self.root / "jwt.json"

    @property
    def identity(self) -> Path:
        """The script that turns claims into headers, with the denied token ids. Owner: the project service."""
        return self.root / "identity.json"

    @property
    def keys(self) -> Path:
        """Keys and denylist as they were last given, to be kept over a restart. Owner: the project service."""
        return self.root / "keys.json"

    @property
    def members(self) -> Path:
        """One file per cluster of an endpoint: its members. Owner: the serving service."""
        return self.root / "members"

    @property
    def clusters(self) -> Path:
        """All clusters, made from `services` and `members` by whoever changed one, under `lock`."""
        return self.root / "cds.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes a file that has two writers."""
        return self.root / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold `lock`. Not to be entered twice."""
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def access_log(self) -> Path:
        """What Envoy answered, a JSON object a line. Written by Envoy."""
        return self.root / "access.jsonl"


def replace(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one. Every update passes here."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_json(path: Path, document: Json) -> None:
    """As `replace`, for a JSON document."""
    replace(path, json.dumps(document, indent=1, ensure_ascii=True).encode())


def discovery(resources: Sequence[Json], version: str = "") -> Json:
    """A DiscoveryResponse, the form in which Envoy takes resources from a file."""
    return {"version_info": version, "resources": list(resources)}


def from_file(path: Path) -> Json:
    """A config source that watches one file for being replaced."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def typed(type_name: str, **fields: Any) -> Json:
    """An Any: a message of Envoy's API with its type."""
    return {"@type": f"type.googleapis.com/{type_name}", **fields}


def http_filter(name: str, message: str, **fields: Any) -> Json:
    """An HTTP filter of Envoy's with its configuration."""
    config = typed(f"envoy.extensions.filters.http.{message}", **fields)
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}
