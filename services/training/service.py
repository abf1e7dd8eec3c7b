"""Wires the training service."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.api.training.v1 import training_service_pb2
from penstock.api.training.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from penstock.events import Relay
from penstock.jobs.executor import Executor
from penstock.jobs.leftovers import Leftovers
from penstock.jobs.local import LocalExecutor
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration
from penstock.rpc.tokens import Tokens
from penstock.rpc.watch import Signals
from penstock.runtime.service import Context, Service
from penstock.store import Database
from services.training.attempts import Attempts
from services.training.commands import Commands
from services.training.datasets import Datasets
from services.training.jobs import PREFIX
from services.training.logs import Logs
from services.training.reconciler import Reconciler
from services.training.repository import Repository
from services.training.servicer import TrainingServicer
from services.training.validation import Limits

SERVICE = training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name


@dataclass(frozen=True)
class Training:
    """The parts of a running training service."""

    repository: Repository
    commands: Commands
    servicer: TrainingServicer
    reconciler: Reconciler
    leftovers: Leftovers


def assemble(
    database: Database,
    objects: ObjectStore,
    executor: Executor,
    channels: Channels,
    tokens: Tokens,
    *,
    address: Callable[[], str],
    limits: Limits,
) -> Training:
    """Make the parts and connect them. `address` is where jobs report; asked once the service listens."""
    repository = Repository(database)
    datasets = Datasets(channels.stub(DatasetServiceStub, "dataset"))
    signals = Signals()
    attempts = Attempts(executor, repository, objects, datasets, tokens, address, limits.local_code)
    reconciler = Reconciler(repository, attempts, datasets, signals, limits.cores)
    commands = Commands(repository, objects, datasets, limits, reconciler.wake)
    servicer = TrainingServicer(commands, Logs(repository, executor, objects), signals)
    leftovers = Leftovers(executor, PREFIX, attempts.wanted)
    return Training(repository, commands, servicer, reconciler, leftovers)


def build(context: Context) -> Service:
    """Build the service. Jobs are processes of this machine, in a folder of the home directory."""
    database, settings = context.database(), context.settings
    executor = LocalExecutor(context.home / "jobs", settings.objects_url)
    training = assemble(
        database,
        context.objects,
        executor,
        context.channels,
        context.tokens,
        address=context.address,
        limits=Limits(
            cores=float(len(os.sched_getaffinity(0))),
            local_code=settings.objects_url.startswith("file:"),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        ),
    )
    repository = training.repository
    return Service(
        "training",
        [Registration(add_TrainingServiceServicer_to_server, training.servicer, SERVICE)],
        prepare=repository.prepare,
        tasks=[
            Relay(database, (repository.runs, repository.models), context.bus).run,
            training.reconciler.run,
            training.leftovers.run,
            executor.prepare,
        ],
    )
