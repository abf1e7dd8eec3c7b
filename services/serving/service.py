"""Wires the serving service."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.api.serving.v1 import serving_service_pb2
from penstock.api.serving.v1.serving_service_pb2_grpc import add_ServingServiceServicer_to_server
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.backing.triton_environment import TritonEnvironment, find_environment
from penstock.edge import Edge
from penstock.events import Relay
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration
from penstock.rpc.tokens import ServiceTokens, Tokens
from penstock.rpc.watch import Signals
from penstock.runtime.service import Context, Service
from penstock.store import Database
from services.serving.commands import Commands
from services.serving.instances import Instances, find_or_explain
from services.serving.reconciler import Reconciler
from services.serving.repository import Repository
from services.serving.servicer import ServingServicer
from services.serving.traffic import Traffic
from services.serving.verification import Verifier

SERVICE = serving_service_pb2.DESCRIPTOR.services_by_name["ServingService"].full_name


@dataclass(frozen=True)
class Serving:
    """The parts of a running serving service."""

    repository: Repository
    commands: Commands
    servicer: ServingServicer
    reconciler: Reconciler


def assemble(
    database: Database,
    objects: ObjectStore,
    channels: Channels,
    tokens: Tokens,
    *,
    home: Path,
    url: str,
    environment: Callable[[], TritonEnvironment],
    ca: Path | None = None,
) -> Serving:
    """Make the parts and connect them. `url` is the edge's, as clients see it; `environment` finds Triton's."""
    repository, signals = Repository(database), Signals()
    instances = Instances(home, objects, environment)
    traffic = Traffic(Edge(home / "envoy"))
    minted = ServiceTokens(tokens, "service:serving")
    context = ssl.create_default_context(cafile=str(ca)) if ca else None
    verifier = Verifier(url, lambda: minted("edge"), context)
    reconciler = Reconciler(repository, instances, traffic, verifier, signals)
    commands = Commands(repository, channels.stub(TrainingServiceStub, "training"), environment, reconciler.wake)
    return Serving(repository, commands, ServingServicer(commands, signals), reconciler)


def build(context: Context) -> Service:
    """Build the service. Model servers are processes of this machine, in a folder of the home directory."""
    database, settings = context.database(), context.settings
    serving = assemble(
        database,
        context.objects,
        context.channels,
        context.tokens,
        home=context.home,
        url=settings.url,
        environment=lambda: find_or_explain(find_environment(settings.data_dir)),
        ca=settings.tls_ca,
    )
    return Service(
        "serving",
        [Registration(add_ServingServiceServicer_to_server, serving.servicer, SERVICE)],
        prepare=serving.repository.prepare,
        tasks=[Relay(database, [serving.repository.endpoints], context.bus).run, serving.reconciler.run],
    )
