"""Routes, the same for any number of endpoints: the identity filter has named the cluster in a header by then.

No route matches on an endpoint, so none is added or removed when endpoints come and go, and matching costs the same
with one endpoint as with a thousand. Two endpoints of one name in two projects are two clusters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from penstock.edge.clusters import PREDICTION_HEADER, service_name
from penstock.edge.descriptors import KSERVE_SERVICE, PREDICTING
from penstock.edge.files import Json, discovery, typed
from penstock.edge.filters import BRIDGE, INNER_HEADERS
from penstock.errors import InvalidArgument

NAME = "edge"
INFERENCE_TIMEOUT = "30s"
STREAM_IDLE = "3600s"  # a Watch that says nothing for this long is ended; the client asks again
KSERVE_LISTENER = "kserve"
# Nothing of a client's identity reaches a model.
_SECRET_HEADERS = ["authorization", "cookie", "proxy-authorization"]
_NAME, _VERSION = "penstock", "2"


def resource(services: Iterable[str], reflection: str) -> Json:
    """The file of all routes; gRPC reflection and health are answered by the service `reflection`."""
    names = sorted(services)
    if reflection not in names:
        raise InvalidArgument(f"'{reflection}' is not one of the services {names}.", field="reflection")
    routes = [
        _direct("healthz", {"path": "/healthz"}, "ok"),
        *_inference(),
        *_server(),
        *(_service(name, f"/penstock.api.{name}.v1.") for name in names),
        *(_service(reflection, f"/grpc.{part}.") for part in ("reflection", "health")),
        _direct("nothing", {"prefix": "/"}, "Nothing is served under this path", status=404),
    ]
    host = {"name": NAME, "domains": ["*"], "routes": routes}
    return discovery([typed("envoy.config.route.v3.RouteConfiguration", name=NAME, virtual_hosts=[host])])


def _inference() -> list[Json]:
    infer, model = r"/v2/models/[^/]+/infer", r"/v2/models/[^/]+(/ready|/config)?"
    infos = "ModelReady|ModelMetadata|ModelConfig"
    return [
        _endpoint("predict-http", {"safe_regex": {"regex": infer}}, prediction=True),
        _endpoint("predict-grpc", {"path": f"/{KSERVE_SERVICE}/{PREDICTING}"}, prediction=True),
        _endpoint("model-http", {"safe_regex": {"regex": model}}),
        _endpoint("model-grpc", {"safe_regex": {"regex": f"/{KSERVE_SERVICE}/({infos})"}}),
    ]


def _endpoint(name: str, match: Json, *, prediction: bool = False) -> Json:
    # A model that was asked twice says the same, so whatever was not answered is asked again, of another member.
    causes = ["connect-failure", "refused-stream", "reset-before-request", "reset"]
    retry = {
        "retry_on": ",".join([*causes, "unavailable"] if "grpc" in name else causes),
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
    }
    action: Json = {
        "cluster_header": "x-penstock-cluster",
        "cluster_not_found_response_code": "NOT_FOUND",
        "timeout": INFERENCE_TIMEOUT,
        "idle_timeout": "300s",
        "retry_policy": retry,
    }
    route: Json = {
        "name": name,
        "match": match,
        "route": action,
        "request_headers_to_remove": [*_SECRET_HEADERS, "x-penstock-cluster", *INNER_HEADERS],
    }
    return route if prediction else {**route, "response_headers_to_remove": [PREDICTION_HEADER]}


def _server() -> list[Json]:
    """What a KServe client asks of the server itself: this is Envoy's answer, whatever the endpoints do."""
    enabled = {BRIDGE: typed("envoy.config.route.v3.FilterConfig", config={})}
    grpc = {
        "name": "kserve-server",
        "match": {"safe_regex": {"regex": f"/{KSERVE_SERVICE}/Server(Live|Ready|Metadata)"}},
        "route": {"cluster": KSERVE_LISTENER},
        "typed_per_filter_config": enabled,
    }
    live = [_direct("kserve", {"path": f"/v2/health/{what}"}, "") for what in ("live", "ready")]
    return [
        _direct(
            "kserve",
            {"path": "/v2"},
            json.dumps({"name": _NAME, "version": _VERSION, "extensions": []}),
            mime="application/json",
        ),
        *live,
        grpc,
    ]


def kserve_answers() -> Json:
    """The routes of the inner listener that answers KServe's server calls, as protobuf: {live: true}, and so on."""
    true = "\x08\x01"  # field 1, a bool
    texts = enumerate((_NAME, _VERSION), 1)
    metadata = "".join(chr(number << 3 | 2) + chr(len(text)) + text for number, text in texts)  # fields 1 and 2
    bodies = {"ServerLive": true, "ServerReady": true, "ServerMetadata": metadata}
    mime = "application/x-protobuf"
    routes = [_direct(rpc, {"path": f"/{KSERVE_SERVICE}/{rpc}"}, body, mime=mime) for rpc, body in bodies.items()]
    return {"name": KSERVE_LISTENER, "virtual_hosts": [{"name": KSERVE_LISTENER, "domains": ["*"], "routes": routes}]}


def _service(service: str, prefix: str) -> Json:
    return {
        "name": f"api-{service}",
        # The header is there when the identity filter ran: if its script fails, nothing gets through.
        "match": {"prefix": prefix, "grpc": {}, "headers": [{"name": "x-penstock-project", "present_match": True}]},
        "route": {
            "cluster": service_name(service),
            "timeout": "0s",
            "idle_timeout": STREAM_IDLE,
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},  # the client's own deadline, without a bound
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 3},
        },
        "request_headers_to_remove": ["cookie", *INNER_HEADERS],
    }


def _direct(name: str, match: Json, body: str, *, status: int = 200, mime: str = "text/plain") -> Json:
    answer: Json = {"status": status}
    if body:
        answer["body"] = {"inline_string": body}
    header = {"header": {"key": "content-type", "value": mime}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    route: Json = {"name": name, "match": match, "direct_response": answer}
    return route if status != 200 else {**route, "response_headers_to_add": [header]}
