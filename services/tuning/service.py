"""Wires the tuning service."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.api.tuning.v1 import tuning_service_pb2
from penstock.api.tuning.v1.tuning_service_pb2_grpc import add_TuningServiceServicer_to_server
from penstock.events import Consumer, Relay
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration
from penstock.rpc.watch import Signals
from penstock.runtime.service import Context, Service
from penstock.store import Database
from services.tuning.commands import Commands
from services.tuning.consumers import KINDS, handler
from services.tuning.reconciler import Reconciler
from services.tuning.repository import Repository
from services.tuning.sampling import Samplers
from services.tuning.servicer import TuningServicer
from services.tuning.trainings import Trainings

SERVICE = tuning_service_pb2.DESCRIPTOR.services_by_name["TuningService"].full_name


@dataclass(frozen=True)
class Tuning:
    """The parts of a running tuning service."""

    repository: Repository
    commands: Commands
    servicer: TuningServicer
    reconciler: Reconciler


def assemble(database: Database, channels: Channels) -> Tuning:
    """Make the parts and connect them."""
    repository, signals = Repository(database), Signals()
    trainings = Trainings(channels.stub(TrainingServiceStub, "training"))
    reconciler = Reconciler(repository, trainings, Samplers(), signals)
    commands = Commands(repository, trainings, reconciler.wake)
    return Tuning(repository, commands, TuningServicer(commands, signals), reconciler)


def build(context: Context) -> Service:
    """Build the service."""
    database = context.database()
    tuning = assemble(database, context.channels)
    trials = Consumer(
        context.bus,
        database,
        "tuning-trials",
        KINDS,
        handler(tuning.commands),
        fetch_history=context.fetch_history,
    )
    return Service(
        "tuning",
        [Registration(add_TuningServiceServicer_to_server, tuning.servicer, SERVICE)],
        prepare=tuning.repository.prepare,
        tasks=[
            Relay(database, (tuning.repository.studies,), context.bus).run,
            tuning.reconciler.run,
            trials.run,
        ],
    )
