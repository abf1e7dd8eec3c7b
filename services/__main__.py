"""`python -m services --only training,tuning`: some or all services in one process, behind one gRPC server.

Where everything else is, the environment says; see `penstock.runtime.settings`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from penstock.errors import InvalidArgument, PenstockError
from penstock.names import SERVICES
from penstock.runtime import logs
from penstock.runtime.files import replace_text
from penstock.runtime.host import Host
from penstock.runtime.lifecycle import stop_signal
from penstock.runtime.service import Build
from penstock.runtime.settings import Settings

EXIT_USAGE = 2

log = structlog.get_logger("services")


def available() -> list[str]:
    """The services that this installation has."""
    here = Path(__file__).parent
    return [name for name in SERVICES if (here / name / "service.py").is_file()]


def choose(only: str) -> list[str]:
    """The services in a comma-separated list, or all there are for "". Raises InvalidArgument for one that is not."""
    present = available()
    chosen = [name.strip() for name in only.split(",") if name.strip()] or present
    for name in chosen:
        if name not in present:
            raise InvalidArgument(f"--only: there is no service '{name}' here; there are {', '.join(present)}.")
    return [name for name in SERVICES if name in chosen]


def load(name: str) -> Build:
    """The `build` of a service."""
    build: Build = importlib.import_module(f"services.{name}.service").build
    return build


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME,…", help="the services to run (default: all)")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="gRPC (port 0: any free one)")
    parser.add_argument("--metrics", default="127.0.0.1:0", metavar="HOST:PORT", help="Prometheus; '' for none")
    parser.add_argument("--home", type=Path, metavar="DIR", help="the platform's home (default: PENSTOCK_HOME)")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written, as JSON, when calls are answered")
    return parser.parse_args(argv)


async def serve(host: Host, ready_file: Path | None) -> None:
    """Run until SIGTERM or SIGINT, then stop gracefully."""
    withdraw(ready_file)  # that of one that was killed
    async with stop_signal() as stop:
        starting = asyncio.create_task(host.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # asked to stop while a server that it needs is not there yet
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        address = await starting
        # What is there now stays; and a bulk of records, each a few objects without cycles, is no reason to look often.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        announce(address, host, ready_file)
        await stopping
        withdraw(ready_file)
        await host.stop()
        log.info("stopped")


def announce(address: str, host: Host, ready_file: Path | None) -> None:
    """Say that calls are answered: in the file, replaced whole, and as the line `ready HOST:PORT`."""
    facts = {
        "address": address,
        "metrics": host.metrics_address,
        "services": [service.name for service in host.services],
        "pid": os.getpid(),
    }
    if ready_file is not None:
        replace_text(ready_file, json.dumps(facts))
    print(f"ready {address}", flush=True)


def withdraw(ready_file: Path | None) -> None:
    """Say no longer that calls are answered."""
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code is 0 after a graceful stop, 2 for a wrong argument or setting, 1 for what else failed."""
    given = arguments(argv)
    try:
        settings = Settings.from_environ(home=given.home)
        logs.configure(level=settings.log_level, json_lines=settings.log_format == "json", file=settings.log_file)
        builds = {name: load(name) for name in choose(given.only)}
        host = Host(settings, builds, given.listen, given.metrics or None)
        asyncio.run(serve(host, given.ready_file))
    except InvalidArgument as error:
        print(f"services: {error}", file=sys.stderr)
        return EXIT_USAGE
    except PenstockError as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
