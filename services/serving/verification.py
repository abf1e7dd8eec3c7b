"""Compares what a started model answers with the examples that came with it: without agreement, no traffic."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from penstock.algorithms.model_format import ModelCard
from penstock.edge import PIN_HEADER, PREDICTION_HEADER
from penstock.errors import FailedPrecondition, Unavailable
from services.serving.traffic import key_of

EXAMPLES_SECONDS = 60.0
PATIENCE_SECONDS = 10.0  # with an edge that answers for itself
_RETRY_SECONDS = 0.05
_EDGE_STATUS = (401, 404, 502, 503, 504)  # what Envoy says by itself; 401: it does not have our newest key yet


class WrongAnswers(FailedPrecondition):
    """A model does not answer its own examples as it did in its run."""


class Verifier:
    """Asks revisions for their examples: directly, and through the edge at `url` with tokens of `token`."""

    def __init__(self, url: str, token: Callable[[], str], ca: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._ssl: ssl.SSLContext | bool = ca or True

    async def compare_directly(self, endpoint: str, http_port: int, card: ModelCard) -> None:
        """Ask a Triton on this machine. Raises WrongAnswers, Unavailable."""
        url = f"http://127.0.0.1:{http_port}/v2/models/{key_of(endpoint)[1]}/infer"
        status, text, _ = await self._ask(url, card, {})
        check(card, status, text, "")

    async def compare_at_edge(self, endpoint: str, revision: int, card: ModelCard) -> None:
        """Ask one revision through the edge, whatever the weights are. Raises WrongAnswers, Unavailable."""
        project, id = key_of(endpoint)
        url = f"{self._url}/v1/projects/{project}/v2/models/{id}/infer"
        headers = {"authorization": f"Bearer {self._token()}", PIN_HEADER: str(revision)}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, text, prediction = await self._ask(url, card, headers)
            if prediction or status not in _EDGE_STATUS:
                break
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_RETRY_SECONDS)
        if not prediction:
            raise Unavailable(f"The edge does not let the examples through: {status} {text[:300]}")
        if not prediction.startswith(f"{endpoint}/revisions/{revision}/"):
            raise Unavailable(f"The edge asked '{prediction}' instead of revision {revision}.")
        check(card, status, text, " through the edge")

    async def _ask(self, url: str, card: ModelCard, headers: dict[str, str]) -> tuple[int, str, str]:
        body = json.dumps(card.example_request()).encode()  # NaN as Triton's parser reads it
        timeout = aiohttp.ClientTimeout(total=EXAMPLES_SECONDS)
        sent = {**headers, "content-type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=sent, ssl=self._ssl) as response,
            ):
                return response.status, await response.text(), response.headers.get(PREDICTION_HEADER, "")
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unavailable(f"{url} does not answer: {error or type(error).__name__}.") from error


def check(card: ModelCard, status: int, text: str, where: str) -> None:
    """Compare an answer to a card's examples. Raises WrongAnswers with what differs."""
    if status != 200:
        raise WrongAnswers(f"The model answers its own examples{where} with an error: {status} {text[:500]}")
    try:
        outputs: list[dict[str, Any]] = json.loads(text)["outputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise WrongAnswers(f"The model's answer to its own examples{where} cannot be read: {error!r}.") from error
    found = card.differences(outputs)
    if found:
        raise WrongAnswers(f"The model answers its own examples wrongly{where}: {'; '.join(found)}.")
