"""Every rpc of the API, read from the descriptors: it says who may call it and names its project."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import penstock.api
from penstock.rpc.access import IN_PROJECT, Access, methods_of
from penstock.rpc.options import service_config


def services() -> list[str]:
    found = []
    for module in pkgutil.walk_packages(penstock.api.__path__, "penstock.api."):
        if module.name.endswith("_pb2"):
            loaded = importlib.import_module(module.name)
            found += [service.full_name for service in loaded.DESCRIPTOR.services_by_name.values()]
    return found


def test_every_method_says_who_may_call_it_and_names_its_project() -> None:
    methods = methods_of(services())
    assert len(methods) > 60
    for method in methods.values():
        assert method.access is not Access.UNSPECIFIED
        assert method.primary or method.access not in IN_PROJECT, method.full_name


def test_no_method_is_open_to_everybody() -> None:
    assert [m.full_name for m in methods_of(services()).values() if m.access is Access.PUBLIC] == []


def test_reads_and_creates_with_a_request_id_are_retried_and_nothing_else() -> None:
    config = service_config(["penstock.api.training.v1.TrainingService"])
    for name in ("GetRun", "ListRuns", "CreateRun"):
        assert f'"{name}"' in config
    for name in ("CancelRun", "AppendMetrics", "WatchRun"):
        assert f'"{name}"' not in config


def test_the_base_install_can_import_what_the_sdk_needs() -> None:
    script = (
        "import sys, penstock.rpc.channels, penstock.rpc.errors, penstock.rpc.paging, penstock.rpc.masks, "
        "penstock.rpc.structs, penstock.runtime.settings\n"
        "heavy = {'structlog', 'prometheus_client', 'jwt', 'cryptography', 'nats', 'motor'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
