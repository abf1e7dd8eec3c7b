"""Endpoints from Python: predictions by the Open Inference Protocol (KServe v2), over REST."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penstock import errors, names
from penstock.sdk.tensors import check_request

if TYPE_CHECKING:
    from penstock.sdk.client import Client

_BY_STATUS: dict[int, type[errors.PenstockError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
_SERVERS_OWN = re.compile(r"^\[request id: [^\]]*\] ?")  # an id that is nowhere else


@dataclass(frozen=True)
class Prediction:
    """An answer: `outputs` as KServe v2 tensors, and the `name` by which it can be traced."""

    name: str
    body: Mapping[str, Any]

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """The data of each output tensor, flat, by name."""
        return {tensor["name"]: tensor["data"] for tensor in self.body.get("outputs", [])}


class EndpointClient:
    """One endpoint of the client's project. Keeps its connection; not for use by several threads at once."""

    def __init__(self, client: Client, endpoint_id: str) -> None:
        self._client = client
        self.name = client.name("endpoint", endpoint_id)
        self.id = names.check_id(names.parse(self.name).id, "endpoint")
        self._connection: http.client.HTTPConnection | None = None

    def predict(self, request: Mapping[str, Any], *, timeout: float = 30.0) -> Prediction:
        """Send one KServe v2 body, `{"inputs": [{"name", "shape", "datatype", "data"}]}`; never retried here.

        Raises InvalidArgument, naming the field, for a body that no model could take.
        """
        check_request(request)
        connection = self._connect(timeout)
        headers = {"content-type": "application/json"}
        if self._client.token:
            headers["authorization"] = f"Bearer {self._client.token}"
        try:
            path = f"/v1/{self._client.project}/v2/models/{self.id}/infer"
            connection.request("POST", path, json.dumps(request), headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise errors.Unavailable(f"No answer from {self._client.url}: {error}. Is the platform up?") from None
        if response.status != 200:
            raise _error(response.status, body, self.id)
        try:
            return Prediction(response.getheader("x-penstock-prediction", ""), json.loads(body))
        except ValueError:
            raise errors.PenstockError(f"The answer of endpoint {self.id} is no JSON.") from None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._connection is None:
            parts = urlsplit(self._client.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        return self._connection


def _error(status: int, body: bytes, endpoint: str) -> errors.PenstockError:
    try:
        document = json.loads(body)
        message = document.get("error") or document.get("message") or str(document)
    except (ValueError, AttributeError):
        message = body.decode("utf-8", "replace")[:500]
    message = _SERVERS_OWN.sub("", str(message))
    return _BY_STATUS.get(status, errors.PenstockError)(f"{message} (endpoint {endpoint}, HTTP {status})")
