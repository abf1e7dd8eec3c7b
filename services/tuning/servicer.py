"""TuningService on the wire: messages to values and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from penstock import names
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.api.tuning.v1.tuning_service_pb2_grpc import TuningServiceServicer as Base
from penstock.errors import InvalidArgument
from penstock.rpc.caller import caller
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import request_id, resource_id
from penstock.rpc.watch import Signals, watch
from penstock.store import Stored, now
from services.tuning import converters
from services.tuning.commands import Commands
from services.tuning.model import FINAL, Study

Context = Any


@dataclass(frozen=True)
class TuningServicer(Base):
    """Converts, delegates, returns. `signals` tells watchers of studies that one has changed."""

    commands: Commands
    signals: Signals

    async def CreateStudy(self, request: pb.CreateStudyRequest, context: Context) -> pb.Study:
        project = names.parse(request.parent, kind="project", field="parent").id
        if request.study.objective.direction == pb.Objective.DIRECTION_UNSPECIFIED:
            raise InvalidArgument("Say whether to MAXIMIZE or MINIMIZE the metric.", field="study.objective.direction")
        id = names.check_id(request.study_id or resource_id(request, project), "study_id")
        name = names.build("study", project, id)
        study = converters.new_study(request.study, name=name, author=caller().actor, created=now())
        named = bool(request.study_id)
        return await self._message(await self.commands.create_study(study, request_id(request), named=named))

    async def GetStudy(self, request: pb.GetStudyRequest, context: Context) -> pb.Study:
        return await self._message(await self.commands.repository.studies.get(_study(request.name)))

    async def ListStudies(self, request: pb.ListStudiesRequest, context: Context) -> pb.ListStudiesResponse:
        project = names.parse(request.parent, kind="project", field="parent").id
        page = await self.commands.repository.list_studies(
            project, page_size(request.page_size), decode_token(request.page_token, request)
        )
        studies = [await self._message(stored) for stored in page]
        return pb.ListStudiesResponse(studies=studies, next_page_token=encode_token(page.next, request))

    async def CancelStudy(self, request: pb.CancelStudyRequest, context: Context) -> pb.Study:
        return await self._message(await self.commands.stop_study(_study(request.name)))

    async def WatchStudy(self, request: pb.WatchStudyRequest, context: Context) -> AsyncIterator[pb.Study]:
        name = _study(request.name)

        async def read() -> tuple[Stored[Study], int]:
            stored = await self.commands.repository.studies.get(name)
            return stored, await self._running(stored)

        changes = watch(
            read,
            version=lambda seen: (seen[0].version, seen[1]),
            done=lambda seen: seen[0].value.state in FINAL,
            signals=self.signals,
            key=name,
        )
        async for stored, running in changes:
            yield converters.study_message(stored, running)

    async def GetTrial(self, request: pb.GetTrialRequest, context: Context) -> pb.Trial:
        name = str(names.parse(request.name, kind="trial"))
        return converters.trial_message(await self.commands.repository.trials.get(name))

    async def ListTrials(self, request: pb.ListTrialsRequest, context: Context) -> pb.ListTrialsResponse:
        study = str(names.parse(request.parent, kind="study", field="parent"))
        await self.commands.repository.studies.get(study)
        page = await self.commands.repository.list_trials(
            study, page_size(request.page_size), decode_token(request.page_token, request)
        )
        trials = [converters.trial_message(stored) for stored in page]
        return pb.ListTrialsResponse(trials=trials, next_page_token=encode_token(page.next, request))

    async def _message(self, stored: Stored[Study]) -> pb.Study:
        return converters.study_message(stored, await self._running(stored))

    async def _running(self, stored: Stored[Study]) -> int:
        if stored.value.state in FINAL:
            return 0
        return len(await self.commands.repository.running(stored.id))


def _study(name: str) -> str:
    return str(names.parse(name, kind="study"))
