"""Jobs as processes of this machine. All state is in folders and locks: any instance goes on where another ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from penstock.errors import FailedPrecondition, Unavailable
from penstock.jobs import warm
from penstock.jobs.attempt import Attempt
from penstock.jobs.executor import LogChunk, Observation, Phase
from penstock.jobs.result import JobResult
from penstock.jobs.spec import Algorithm, AttemptRef, JobSpec, Report
from penstock.objects import ObjectStore, safe_join
from penstock.objects.durable import make_folder
from penstock.runner import processes
from penstock.runtime.settings import NO_TELEMETRY, inherited

SHIM = "penstock.jobs.shim"
WARM = "penstock.jobs.warm"
SHUTDOWN_SECONDS = 10.0
# What a shim may know of the service's environment: nothing that could be a secret.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class LocalExecutor:
    """Runs each attempt under a detached shim (see `shim`), built-in algorithms in warm ones where that is possible.

    `root` is a folder on a local disk. Executors of one root share the process for warm starts: `preload` is what it
    imports ("" for no warm starts), and it leaves after `idle` seconds without work. Ids of jobs are unique in a root.
    """

    def __init__(
        self, root: Path, objects_url: str, *, preload: str = warm.PRELOAD, idle: float = warm.IDLE_SECONDS
    ) -> None:
        self._root = Path(os.path.realpath(root))
        self._objects_url = objects_url
        self._objects = ObjectStore.open(objects_url)
        self._preload = preload
        self._idle = idle
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._children_lock = threading.Lock()

    async def prepare(self) -> None:
        """Start the process for warm starts, without waiting for it."""
        if self._preload:
            await asyncio.to_thread(self._start_warm)

    async def start(self, spec: JobSpec) -> None:
        """Start an attempt unless it has been already. Raises Unavailable if that cannot be done now."""
        try:
            await asyncio.to_thread(self._start, spec)
        except OSError as error:
            raise Unavailable(f"No job can be started below {self._root} now: {error}. Try again later.") from error

    async def observe(self, ref: AttemptRef) -> Observation:
        """What has become of an attempt."""
        return await asyncio.to_thread(self._observe, ref)

    async def report_to(self, ref: AttemptRef, report: Report) -> None:
        """Tell a running attempt a new address or token."""
        attempt = Attempt.of(self._root, ref)
        if attempt.folder.is_dir():
            await asyncio.to_thread(attempt.put_report, report)

    async def cancel(self, ref: AttemptRef, grace: float) -> None:
        """Have an attempt end. An attempt that never started is refused its start; one with a result has ended."""
        await asyncio.to_thread(self._cancel, ref, grace)

    async def kill_rest(self, ref: AttemptRef) -> int:
        """End every process of an attempt, its shim too; TimeoutError if some cannot be ended."""
        return await asyncio.to_thread(self._kill_rest, Attempt.of(self._root, ref))

    async def read_log(self, ref: AttemptRef, offset: int = 0, limit: int = 1 << 20) -> LogChunk:
        """A part of the log; empty when there is nothing (yet, or any more) at that offset."""
        return await asyncio.to_thread(self._read_log, ref, offset, limit)

    async def cleanup(self, ref: AttemptRef, *, last: bool) -> None:
        """Remove an attempt's folder. Raises FailedPrecondition while it is held."""
        await asyncio.to_thread(self._cleanup, Attempt.of(self._root, ref), last)

    async def jobs(self, prefix: str) -> list[str]:
        """The jobs that have a folder."""
        return await asyncio.to_thread(self._jobs, prefix)

    async def remove(self, job: str) -> bool:
        """Remove a job's folder, with all attempts, unless one is held. TimeoutError if a process cannot be ended."""
        return await asyncio.to_thread(self._remove, job)

    async def shutdown(self) -> None:
        """End the process for warm starts and all running attempts, which are LOST then (`penstock down`)."""
        await asyncio.to_thread(self._shutdown)

    def _start(self, spec: JobSpec) -> None:
        attempt = Attempt.of(self._root, spec.ref)
        with self._lock:
            self._reap()
            if attempt.started() or attempt.held() or self._objects.get_named(spec.ref.result_key) is not None:
                return
            make_folder(self._root)
            attempt.put_job(spec, self._objects_url)
            if isinstance(spec.code, Algorithm) and self._preload:
                if warm.ask(self._warm, os.fsencode(attempt.folder)):
                    return
                self._start_warm()
            log = os.open(attempt.folder / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._spawn(SHIM, [str(attempt.folder)], log)
            finally:
                os.close(log)

    def _observe(self, ref: AttemptRef) -> Observation:
        self._reap()
        attempt = Attempt.of(self._root, ref)
        # In this order. A start record whose shim no longer holds the lock means that it has ended for good, and then
        # its result, if any, was written before. Otherwise what happens between two looks would deceive.
        started = attempt.started()
        held = attempt.held()
        text = self._objects.get_named(ref.result_key)
        if text is not None:
            return Observation(Phase.RESULT, JobResult.from_json(text))
        if held:
            return Observation(Phase.HELD)
        return Observation(Phase.LOST if started else Phase.NEVER_STARTED)

    def _cancel(self, ref: AttemptRef, grace: float) -> None:
        if self._objects.get_named(ref.result_key) is not None:
            return  # its folder may be gone, and must not come back
        attempt = Attempt.of(self._root, ref)
        attempt.folder.mkdir(parents=True, exist_ok=True)
        attempt.cancel(grace)

    def _jobs(self, prefix: str) -> list[str]:
        return sorted(folder.name for folder in self._root.glob(f"{prefix}*") if folder.is_dir())

    def _kill_rest(self, attempt: Attempt) -> int:
        shim = attempt.identity("start.json")
        command = attempt.identity("command.json")
        if shim is None or not processes.send(shim, signal.SIGSTOP):
            return processes.end_family(command, attempt.marker)
        # What left the command's session and environment is known as the shim's descendant only, while that lives.
        # Stopped, it neither starts another one nor takes the ends of these for the end of its job.
        ended = processes.end_family(command, attempt.marker, ancestor=shim.pid)
        processes.send(shim, signal.SIGKILL)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while processes.alive(shim):  # a signal takes its time
            if time.monotonic() > deadline:
                raise TimeoutError(f"the shim {shim.pid} cannot be ended")
            time.sleep(0.002)
        return ended + 1

    def _read_log(self, ref: AttemptRef, offset: int, limit: int) -> LogChunk:
        try:
            with open(Attempt.of(self._root, ref).log, "rb") as file:
                file.seek(offset)
                data = file.read(limit)
        except FileNotFoundError:
            data = b""
        return LogChunk(data, offset + len(data))

    def _cleanup(self, attempt: Attempt, last: bool) -> None:
        if attempt.held():
            raise FailedPrecondition("This attempt still runs; cancel it first.")
        shutil.rmtree(attempt.folder, ignore_errors=True)
        if last:
            shutil.rmtree(attempt.folder.parent, ignore_errors=True)

    def _remove(self, job: str) -> bool:
        folder = safe_join(self._root, job, field="job")
        attempts = [Attempt(path) for path in folder.glob("[0-9]*")]
        if any(attempt.held() for attempt in attempts):
            return False
        for attempt in attempts:  # only these folders tell which processes are an attempt's
            self._kill_rest(attempt)
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def _shutdown(self) -> None:
        if not warm.ask(self._warm, warm.STOP):
            # Still importing, it takes no messages yet.
            for process in processes.with_arguments(WARM, str(self._warm)):
                processes.send(process, signal.SIGKILL)
        # Shims that hold a lock, with all below them, and then those that have not come as far: none goes on meanwhile.
        shims = processes.with_arguments(SHIM, f"{self._root}/")
        shims += processes.with_arguments(WARM, str(self._warm))  # forks of it are called so too
        for process in shims:
            processes.send(process, signal.SIGSTOP)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        attempts = [Attempt(job.parent) for job in self._root.glob("*/*/job.json")]
        for attempt in attempts:
            if attempt.held():
                self._kill_rest(attempt)
        for process in shims:
            processes.send(process, signal.SIGKILL)
        while (held := [attempt for attempt in attempts if attempt.held()]) and time.monotonic() < deadline:
            for attempt in held:
                self._kill_rest(attempt)
            time.sleep(0.01)
        for attempt in attempts:
            self._kill_rest(attempt)
        while any(processes.alive(process) for process in shims) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._reap()

    @property
    def _warm(self) -> Path:
        return self._root / "_warm"

    def _start_warm(self) -> None:
        self._warm.mkdir(parents=True, exist_ok=True)
        if warm.running(self._warm):
            return
        log = os.open(self._warm / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._spawn(WARM, [str(self._warm), self._preload, str(self._idle)], log)
        finally:
            os.close(log)

    def _spawn(self, module: str, arguments: list[str], log: int) -> None:
        """Start a module of ours as a process of its own: a session, no descriptors, nothing of our environment."""
        environment = inherited(_PASSED_ON) | NO_TELEMETRY
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        with self._children_lock:
            self._children.append(process)

    def _reap(self) -> None:
        # Shims are our children only until we restart; until then, the ended ones must not stay as zombies.
        with self._children_lock:
            self._children = [child for child in self._children if child.poll() is None]
