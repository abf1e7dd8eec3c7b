"""Wires the dataset service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from penstock.events import Relay
from penstock.objects import ObjectStore
from penstock.rpc.server import Registration
from penstock.rpc.watch import Signals
from penstock.runtime.service import Context, Service
from penstock.store import Database
from services.dataset.commands.edit_records import EditRecords
from services.dataset.commands.import_file import Imports
from services.dataset.committing.committer import Committer
from services.dataset.committing.planning import Planner
from services.dataset.drafts import DraftLog
from services.dataset.ingest.importer import Importer
from services.dataset.layers import Layers
from services.dataset.partitions.writer import Manifests, PartitionWriter
from services.dataset.query.browser import Browser
from services.dataset.query.diff import Differ
from services.dataset.query.files import PartitionFiles
from services.dataset.query.scan import Scanner
from services.dataset.query.view import Views
from services.dataset.reconcile import Reconciler
from services.dataset.repository import Repository
from services.dataset.servicer import DatasetServicer

SERVICE = pb.DESCRIPTOR.services_by_name["DatasetService"].full_name


@dataclass(frozen=True)
class Datasets:
    """The parts of a running dataset service."""

    repository: Repository
    drafts: DraftLog
    committer: Committer
    importer: Importer
    partitions: PartitionWriter
    scanner: Scanner
    commits: Reconciler
    imports: Reconciler
    writes: Reconciler
    servicer: DatasetServicer

    @property
    def registration(self) -> Registration:
        """The servicer, as servers take it."""
        return Registration(add_DatasetServiceServicer_to_server, self.servicer, SERVICE)


def assemble(database: Database, objects: ObjectStore, cache: Path) -> Datasets:
    """Make the parts and connect them. `cache` is a folder for partitions that are read here."""
    repository = Repository(database)
    signals = Signals()
    layers = Layers(repository, objects)
    drafts = DraftLog(repository, layers, signals)
    partitions = PartitionWriter(repository, objects, signals)
    writes = Reconciler("partitions", partitions.find, partitions.visit, parallel=1)
    committer = Committer(repository, objects, Planner(repository, objects, layers), signals, writes.wake)
    commits = Reconciler("commits", committer.find, committer.visit)
    importer = Importer(repository, objects, drafts, signals, commits.wake)
    imports = Reconciler("imports", importer.find, importer.visit)
    views = Views(repository, layers)
    manifests = Manifests(repository, objects, signals, writes.wake)
    scanner = Scanner(repository, objects, manifests, PartitionFiles(objects, cache))
    servicer = DatasetServicer(
        repository, objects, signals, commits, EditRecords(repository, drafts),
        Imports(repository, objects, signals, imports.wake), views, Browser(views, scanner), Differ(repository),
        manifests,
    )  # fmt: skip
    return Datasets(repository, drafts, committer, importer, partitions, scanner, commits, imports, writes, servicer)


def build(context: Context) -> Service:
    """The dataset service of a process."""
    database = context.database()
    datasets = assemble(database, context.objects, context.home / "dataset" / "partitions")
    relay = Relay(database, [datasets.repository.datasets], context.bus)

    async def close() -> None:
        datasets.scanner.close()

    return Service(
        context.service,
        [datasets.registration],
        prepare=datasets.repository.prepare,
        tasks=[relay.run, datasets.commits.run, datasets.imports.run, datasets.writes.run],
        close=close,
    )
