"""The HTTP filters, in their order: who asks, for what, in which language.

gRPC-web -> token (jwt_authn) -> model name from a gRPC body -> identity (claims to headers, denylist, project)
-> KServe's server calls -> REST to gRPC -> router.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from penstock.edge.descriptors import KSERVE_SERVICE, MODEL_FIELDS
from penstock.edge.files import Json, discovery, from_file, http_filter, typed
from penstock.edge.model import Keys

ISSUER = AUDIENCE = "penstock"
JWT = "envoy.filters.http.jwt_authn"
IDENTITY = "envoy.filters.http.lua"
BRIDGE = "envoy.filters.http.grpc_http1_reverse_bridge"
PIN_HEADER = "x-penstock-revision"
# What is read of a token, and the headers that hold it between two filters; no service or model sees them.
CLAIM = "x-penstock-claim-"
CLAIMS = ("project", "role", "jti")
INNER_HEADERS = (*(f"{CLAIM}{claim}" for claim in CLAIMS), "penstock-pin")

_JWT_TYPE = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_LUA_TYPE = "envoy.extensions.filters.http.lua.v3.Lua"


def chain(jwt: Path, identity: Path, kserve: Path, api: Path, api_services: list[str]) -> list[Json]:
    """All filters. `jwt` and `identity` are the files of those two; `kserve` and `api` descriptor sets."""
    filters = [
        http_filter("grpc_web", "grpc_web.v3.GrpcWeb"),
        _discovered(JWT, jwt, _JWT_TYPE),
        _model_name(kserve),
        _discovered(IDENTITY, identity, _LUA_TYPE),
        _bridge(),
    ]
    if api_services:
        filters.append(_transcoder(api, api_services))
    return [*filters, http_filter("router", "router.v3.Router", suppress_envoy_headers=True)]


def _discovered(name: str, file: Path, type_name: str) -> Json:
    """A filter that may change while connections stay open; without a configuration it answers 500 to everything."""
    source = {"config_source": from_file(file), "type_urls": [f"type.googleapis.com/{type_name}"]}
    return {"name": name, "config_discovery": source}


def jwt_resource(keys: Keys) -> Json:
    """The file of the token filter: keys inline, since Envoy does not re-read a key file."""
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": keys.jwks},
        # Said explicitly: by default a token in the query would do too, and end up in logs.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "payload_in_metadata": "claims",
        # What the identity filter needs of every token: Lua gets a header for less than metadata, which is a table.
        "claim_to_headers": [{"header_name": f"{CLAIM}{claim}", "claim_name": claim} for claim in CLAIMS],
        "forward": True,  # our services check it again; routes to models drop it
        "clock_skew_seconds": 5,
        "require_expiration": True,
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    config = typed(
        _JWT_TYPE,
        providers={"penstock": provider},
        rules=[
            {"match": {"path": "/healthz"}},
            {"match": {"prefix": "/"}, "requires": {"provider_name": "penstock"}},
        ],
    )
    return discovery([_extension(JWT, config)])


def identity_resource(keys: Keys) -> Json:
    """The file of the identity filter, with the denied tokens as a table in its script."""
    script = resources.files("penstock.edge").joinpath("identity.lua").read_text("utf-8")
    entries = "".join(f"[{json.dumps(jti)}]=true," for jti in sorted(keys.denied))
    script = script.replace("--[[DENIED]]", entries)
    return discovery([_extension(IDENTITY, typed(_LUA_TYPE, default_source_code={"inline_string": script}))])


def _extension(name: str, config: Json) -> Json:
    return typed("envoy.config.core.v3.TypedExtensionConfig", name=name, typed_config=config)


def _model_name(kserve: Path) -> Json:
    methods: Json = {
        f"{KSERVE_SERVICE}.{method}": {"request_field_extractions": {field: {}}}
        for method, (field, _) in MODEL_FIELDS.items()
    }
    return http_filter(
        "grpc_field_extraction",
        "grpc_field_extraction.v3.GrpcFieldExtractionConfig",
        descriptor_set={"filename": str(kserve)},
        extractions_by_method=methods,
    )


def _bridge() -> Json:
    """Lets a plain HTTP answer be one of gRPC; off but for the routes that ask for it."""
    message = "grpc_http1_reverse_bridge.v3.FilterConfig"
    fields = {"content_type": "application/x-protobuf", "withhold_grpc_frames": True}
    return {**http_filter("grpc_http1_reverse_bridge", message, **fields), "disabled": True}


def _transcoder(api: Path, services: list[str]) -> Json:
    return http_filter(
        "grpc_json_transcoder",
        "grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor=str(api),
        services=services,
        convert_grpc_status=True,
        request_validation_options={"reject_unknown_query_parameters": True},
        print_options={
            "always_print_primitive_fields": True,
            "preserve_proto_field_names": False,
            "stream_newline_delimited": True,
        },
        case_insensitive_enum_parsing=True,
        query_param_unescape_plus=True,  # as HTML forms and `curl -G --data-urlencode` write a space
    )


def early_headers() -> list[Json]:
    """Before anything reads a header: what a client says in our name is dropped, but for the wish to be pinned.

    That one waits under another name until the identity filter knows whether the token may.
    """
    pin = {"key": "penstock-pin", "value": f"%REQ({PIN_HEADER})%"}
    mutations: list[Json] = [
        {"remove": "penstock-pin"},
        {"append": {"header": pin, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
        {"remove_on_match": {"key_matcher": {"prefix": "x-penstock-", "ignore_case": True}}},
        # Nor do clients steer timeouts, retries or ids.
        {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-", "ignore_case": True}}},
        {"remove": "x-request-id"},
    ]
    config = typed("envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=mutations)
    return [{"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}]
