"""How Envoy's own refusals look: gRPC status for gRPC clients, google.rpc.Status for REST, `error` for KServe REST."""

from __future__ import annotations

from penstock.edge.files import Json

# HTTP status -> gRPC code and reason (AIP-193), for REST bodies. The reasons are those of the services' own errors.
_CODES = {
    400: (3, "INVALID_ARGUMENT"),
    401: (16, "UNAUTHENTICATED"),
    403: (7, "PERMISSION_DENIED"),
    404: (5, "NOT_FOUND"),
    408: (4, "DEADLINE_EXCEEDED"),
    413: (8, "RESOURCE_EXHAUSTED"),
    429: (8, "RESOURCE_EXHAUSTED"),
    500: (13, "INTERNAL"),
    502: (14, "UNAVAILABLE"),
    503: (14, "UNAVAILABLE"),
    504: (4, "DEADLINE_EXCEEDED"),
}
_BODY = "%LOCAL_REPLY_BODY%"
_NO_TOKEN = f"{_BODY} (send a valid token: 'authorization: Bearer ...')"
_NO_ENDPOINT = "There is no such endpoint in project '%REQ(x-penstock-project)%': '%REQ(x-penstock-endpoint)%'"

# A REST request looks like gRPC too once it was turned into one, but keeps its path in another header.
_REST_MARK: Json = {"name": "x-envoy-original-path", "present_match": True, "invert_match": True}
_GRPC_TYPE: Json = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
_GRPC: Json = {"and_filter": {"filters": [{"header_filter": {"header": h}} for h in (_GRPC_TYPE, _REST_MARK)]}}
_KSERVE: Json = {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": "/v2"}}}}
_UNKNOWN_ENDPOINT: Json = {"response_flag_filter": {"flags": ["NC"]}}


def config() -> Json:
    """The local_reply_config; the first mapper that fits wins."""
    return {
        "mappers": [
            # An unknown endpoint is NOT_FOUND; by its HTTP status it would be UNIMPLEMENTED.
            {**_text([_UNKNOWN_ENDPOINT, _GRPC], _NO_ENDPOINT), "headers_to_add": [_status(5)]},
            _text([_GRPC, _is(401)], _NO_TOKEN),
            {**_text([_GRPC, _is(413)], _BODY), "headers_to_add": [_status(8)]},
            _text([_GRPC], _BODY),
            _json([_UNKNOWN_ENDPOINT], {"error": _NO_ENDPOINT}),
            _json([_KSERVE, _is(401)], {"error": _NO_TOKEN}),
            # A direct answer of 200 keeps its own body.
            _text([_is(200)], _BODY),
            _json([_KSERVE], {"error": _BODY}),
            *(
                _json([_is(status)], _rpc_status(code, _NO_TOKEN if status == 401 else _BODY, reason))
                for status, (code, reason) in _CODES.items()
            ),
        ],
        "body_format": {"json_format": _rpc_status(2, _BODY, "UNKNOWN")},
    }


def _rpc_status(code: int, message: str, reason: str) -> Json:
    """A google.rpc.Status, as the services' errors look in REST."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "penstock"}
    return {"code": code, "message": message, "details": [info]}


def _is(status: int) -> Json:
    value = {"default_value": status, "runtime_key": "penstock.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _all(filters: list[Json]) -> Json:
    return filters[0] if len(filters) == 1 else {"and_filter": {"filters": filters}}


def _text(filters: list[Json], text: str) -> Json:
    return {"filter": _all(filters), "body_format_override": {"text_format_source": {"inline_string": text}}}


def _json(filters: list[Json], body: Json) -> Json:
    return {"filter": _all(filters), "body_format_override": {"json_format": body}}


def _status(code: int) -> Json:
    header = {"key": "grpc-status", "value": str(code)}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
