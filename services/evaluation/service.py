"""The wiring of the evaluation service."""

from __future__ import annotations

import asyncio

from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.api.evaluation.v1 import evaluation_service_pb2
from penstock.api.evaluation.v1.evaluation_service_pb2_grpc import add_EvaluationServiceServicer_to_server
from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceStub
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.events import Relay
from penstock.jobs.leftovers import Leftovers
from penstock.jobs.local import LocalExecutor
from penstock.rpc.server import Registration
from penstock.runtime.service import Context, Service
from services.evaluation.commands import Evaluations
from services.evaluation.jobs import PREFIX
from services.evaluation.peers import Peers
from services.evaluation.reconciler import Reconciler
from services.evaluation.repository import Repository
from services.evaluation.servicer import EvaluationServicer


def build(context: Context) -> Service:
    """Build the service. Its jobs share the folder, and so the warm interpreters, of training's."""
    repository = Repository(context.database())
    peers = Peers(
        context.channels.stub(DatasetServiceStub, "dataset"),
        context.channels.stub(TrainingServiceStub, "training"),
        context.channels.stub(ServingServiceStub, "serving"),
    )
    evaluations = Evaluations(repository, peers, asyncio.Event())
    executor = LocalExecutor(context.home / "jobs", context.settings.objects_url)
    reconciler = Reconciler(repository, evaluations, executor, context.objects)
    return Service(
        "evaluation",
        [
            Registration(
                add_EvaluationServiceServicer_to_server,
                EvaluationServicer(evaluations, context.objects),
                evaluation_service_pb2.DESCRIPTOR.services_by_name["EvaluationService"].full_name,
            )
        ],
        prepare=repository.prepare,
        tasks=[
            Relay(context.database(), (repository.evaluations,), context.bus).run,
            reconciler.run,
            Leftovers(executor, PREFIX, repository.wanted).run,
        ],
    )
