"""The folder of one attempt on this machine, and the two things that keep it single: a lock and a start record.

`lock` is held (flock) by the shim for as long as it lives and by nobody else. `start.json` is made once (O_EXCL) by the
shim that got the lock: whoever finds it, or a result, leaves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.errors import InvalidArgument
from penstock.jobs.locks import held
from penstock.jobs.spec import AttemptRef, JobSpec, Report
from penstock.objects import ObjectStore, safe_join
from penstock.runner.processes import Identity, identity_of
from penstock.runtime.files import replace_text

LOCK_SECONDS = 1.0  # an observer holds the lock for a moment; a shim that lost to another shim learns it after this


@dataclass(frozen=True)
class Attempt:
    """An attempt's folder."""

    folder: Path

    @classmethod
    def of(cls, root: Path, ref: AttemptRef) -> Attempt:
        """The folder of an attempt below an executor's root. Raises InvalidArgument for an id that is no name."""
        if "/" in ref.job or ref.attempt < 1:
            raise InvalidArgument(f"'{ref.job}' is no job's id, or {ref.attempt} no attempt.", field="job")
        return cls(safe_join(root, f"{ref.job}/{ref.attempt}", field="job"))

    @property
    def log(self) -> Path:
        """What the command printed."""
        return self.folder / "log"

    @property
    def work(self) -> Path:
        """The command's own folder, made anew by the runner."""
        return self.folder / "work"

    @property
    def checkpoint(self) -> Path:
        """Kept from one attempt to the next."""
        return self.folder.parent / "checkpoint"

    @property
    def users(self) -> Path:
        """The file by which all attempts of a root keep the users of their commands apart."""
        return self.folder.parent.parent / "users.lock"

    @property
    def marker(self) -> str:
        """What the command's processes carry in their environment; "" while there is none, and in a copy of it."""
        text = self.read("marker")
        marker, lock = json.loads(text) if text else ("", None)
        return str(marker) if lock == self._lock_file() else ""

    def mark(self) -> str:
        """Make the marker: by chance, so that no other job can name this one's. For who holds the lock."""
        self.write("marker", json.dumps([secrets.token_hex(12), self._lock_file()]))
        return self.marker

    def write(self, name: str, text: str) -> None:
        """Write a file of this folder whole, readable by the platform's user alone."""
        replace_text(self.folder / name, text)

    def read(self, name: str) -> str | None:
        """What a file of this folder holds, or None."""
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return None

    def put_job(self, spec: JobSpec, objects_url: str) -> None:
        """Write what a shim needs; a report's token goes into a file of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.put_report(spec.report)
        self.write("job.json", json.dumps({"spec": spec.to_json(), "objects": objects_url}))

    def job(self) -> tuple[JobSpec, ObjectStore] | None:
        """What `put_job` wrote; None if the attempt was cleaned up."""
        text = self.read("job.json")
        if text is None:
            return None
        body = json.loads(text)
        return JobSpec.from_json(body["spec"]), ObjectStore.open(body["objects"])

    def put_report(self, report: Report | None) -> None:
        """Say where metrics go from now on: a service that came back may have another address."""
        if report is not None:
            self.write("report.json", json.dumps(asdict(report)))

    def report(self) -> Report | None:
        """Where metrics go."""
        text = self.read("report.json")
        return Report(**json.loads(text)) if text else None

    def cancel(self, grace: float) -> None:
        """Ask the shim, now or whenever it starts, to end the command, with `grace` seconds between TERM and KILL."""
        self.write("cancel.json", json.dumps({"grace": grace}))

    def cancelled(self) -> float | None:
        """The grace, once `cancel` was called."""
        text = self.read("cancel.json")
        return float(json.loads(text)["grace"]) if text else None

    def lock(self) -> int | None:
        """Take the lock for this process; returns its descriptor, or None if another shim has it."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    return None
                time.sleep(0.01)

    def held(self) -> bool:
        """Whether a living shim holds the lock."""
        return held(self.folder / "lock")

    def record_start(self) -> bool:
        """Write the start record with this process's identity; False if there is one."""
        try:
            descriptor = os.open(self.folder / "start.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOENT):
                return False
            raise
        with open(descriptor, "w") as file:
            file.write(json.dumps({**asdict(identity_of(os.getpid())), "lock": self._lock_file()}))
        return True

    def started(self) -> bool:
        """Whether there is a start record."""
        return (self.folder / "start.json").exists()

    def record_command(self, identity: Identity) -> None:
        """Write down who the command is."""
        self.write("command.json", json.dumps({**asdict(identity), "lock": self._lock_file()}))

    def identity(self, name: str) -> Identity | None:
        """The process in "start.json" or "command.json"; None if it was not written (whole).

        None, too, in a copy of the folder, whose lock is another file: there it is a process of the original.
        """
        with contextlib.suppress(ValueError, TypeError, KeyError):
            found = json.loads(self.read(name) or "null")
            if found["lock"] == self._lock_file():
                return Identity(found["pid"], found["start_time"], found["boot_id"])
        return None

    def _lock_file(self) -> list[int]:
        """Which file the lock is, wherever the folder is moved; [] for none."""
        try:
            found = (self.folder / "lock").stat()
        except FileNotFoundError:
            return []
        return [found.st_dev, found.st_ino]
