"""Two projects that must never meet: each with a dataset, a model and an endpoint of the same names."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from penstock.api.project.v1 import project_service_pb2 as project_pb
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.errors import AlreadyExists
from penstock.sdk import Client
from penstock.sdk.following import wait
from tests.support.attacker import Victim

SAME = "same"  # the name of everything in both projects


@dataclass(frozen=True)
class Rival:
    """One of them, as its editor; `labels` are what its endpoint answers, and nobody else's."""

    project: str
    client: Client
    admin: Client
    labels: frozenset[str]

    @property
    def name(self) -> str:
        """The project's resource name."""
        return f"projects/{self.project}"

    def train(self, code: training_pb.Code, *command: str, seconds: float = 60) -> training_pb.Run:
        """Run code on its dataset and wait for the end."""
        version = f"{self.name}/datasets/{SAME}/versions/1"
        run = training_pb.Run(dataset_version=version, code=code, command=command, model="" if command else SAME)
        run.resources.timeout.CopyFrom(Duration(seconds=int(seconds)))
        made = self.client.training.CreateRun(training_pb.CreateRunRequest(parent=self.name, run=run))
        return wait(lambda: self.client.training.WatchRun(training_pb.WatchRunRequest(name=made.name)))


def token_of(admin: Client, project: str, subject: str, role: str, ttl: int = 3600) -> project_pb.Token:
    """A token from the API."""
    asked = project_pb.Token(subject=subject, role=project_pb.Role.Value(f"ROLE_{role.upper()}"))
    asked.ttl.FromSeconds(ttl)
    request = project_pb.CreateTokenRequest(parent=f"projects/{project}", token=asked)
    return admin.projects.CreateToken(request)


def make_project(victim: Victim, project: str) -> Client:
    """A project, unless it is there, and a client of its admin."""
    with Client(victim.url, victim.admin, project) as home:
        with suppress(AlreadyExists):  # another file of tests made it
            home.projects.CreateProject(project_pb.CreateProjectRequest(project_id=project))
        return Client(victim.url, token_of(home, project, "boss", "admin").text, project)


def make_rivals(victim: Victim, folder: Path) -> tuple[Rival, Rival]:
    """Both, side by side."""
    some = secrets.token_hex(2)
    plans = ((f"red-{some}", ("apple", "cherry")), (f"green-{some}", ("lime", "pear")))
    with ThreadPoolExecutor(2) as pool:
        red, green = pool.map(lambda plan: _rival(victim, folder, *plan), plans)
    return red, green


def _rival(victim: Victim, folder: Path, project: str, labels: tuple[str, str]) -> Rival:
    admin = make_project(victim, project)
    client = Client(victim.url, token_of(admin, project, f"{project}-editor", "editor").text, project)
    path = folder / f"{project}.csv"
    rows = [f"k{n},{n % 10 + 5 * (n % 2)},{labels[n % 2]}" for n in range(80)]
    path.write_text("id,width,kind\n" + "\n".join(rows))
    client.dataset(SAME).create(key_field="id", label_field="kind")
    client.dataset(SAME).import_file(path, key="id", label="kind")
    rival = Rival(project, client, admin, frozenset(labels))
    run = rival.train(training_pb.Code(algorithm="logistic-regression"))
    assert run.model_version, run.reason
    endpoint = client.name("endpoint", SAME)
    asked = serving_pb.DeployModelRequest(name=endpoint, model_version=run.model_version)
    asked.hold.FromMilliseconds(200)
    made = client.serving.DeployModel(asked)
    done: serving_pb.Revision = wait(
        lambda: client.serving.WatchRevision(serving_pb.WatchRevisionRequest(name=made.name))
    )
    assert done.state == serving_pb.Revision.SERVING, done.reason
    return rival


def question(rows: int = 2) -> dict[str, object]:
    """A request that both endpoints understand."""
    return {"inputs": [{"name": "width", "shape": [rows, 1], "datatype": "FP32", "data": [1.0, 12.0][:rows]}]}
