"""The one port, the inner listener that answers KServe's server calls, and the file that Envoy is started with."""

from __future__ import annotations

from penstock.edge import access_log, filters, replies, routes
from penstock.edge.clusters import socket
from penstock.edge.files import Folder, Json, discovery, from_file, http_filter, typed
from penstock.edge.model import Tls

# Bounds what one request makes Envoy hold: a gRPC body is held until the model's name was read from it.
MAX_BODY_BYTES = 16 << 20
MAX_CONNECTIONS = 10_000
# What is asked of the admin interface here and by Prometheus. It has no password, and a job of another user can reach
# it: without the list that job could end Envoy (/quitquitquit), or make it fail or forget.
_ADMIN_PATHS = ("/ready", "/server_info", "/stats", "/clusters", "/config_dump", "/reopen_logs")
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def bootstrap(folder: Folder, admin_port: int) -> Json:
    """What Envoy is started with. The admin interface (metrics too) is on loopback only."""
    return {
        "node": {"id": "edge", "cluster": "penstock"},
        "admin": {"address": socket("127.0.0.1", admin_port), "allow_paths": [{"prefix": p} for p in _ADMIN_PATHS]},
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": typed("envoy.extensions.bootstrap.internal_listener.v3.InternalListener"),
            }
        ],
        "overload_manager": {"resource_monitors": [_connections()]},
        "dynamic_resources": {"lds_config": from_file(folder.listeners), "cds_config": from_file(folder.clusters)},
        "static_resources": {"clusters": [_inner_cluster()]},
    }


def _connections() -> Json:
    name = "envoy.resource_monitors.global_downstream_max_connections"
    message = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {"name": name, "typed_config": typed(message, max_active_downstream_connections=MAX_CONNECTIONS)}


def resource(folder: Folder, chain: list[Json], host: str, port: int, tls: Tls | None) -> Json:
    """The file of both listeners."""
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": typed(_HCM, **_manager(folder, chain)),
    }
    filter_chain: Json = {"filters": [manager]}
    if tls is not None:
        filter_chain["transport_socket"] = _tls(tls)
    edge = typed(
        "envoy.config.listener.v3.Listener",
        name="edge",
        address=socket(host, port),
        # Otherwise a second (say, a stale) Envoy silently takes half of the connections.
        enable_reuse_port=False,
        per_connection_buffer_limit_bytes=MAX_BODY_BYTES,
        filter_chains=[filter_chain],
    )
    return discovery([edge, _inner()])


def _manager(folder: Folder, chain: list[Json]) -> Json:
    return {
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "rds": {"route_config_name": routes.NAME, "config_source": from_file(folder.routes)},
        "http_filters": chain,
        "early_header_mutation_extensions": filters.early_headers(),
        "access_log": [access_log.config(folder.access_log)],
        "local_reply_config": replies.config(),
        # Request ids are Envoy's: a client that could choose them could repeat the name of a prediction.
        "generate_request_id": True,
        "preserve_external_request_id": False,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": typed("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", pack_trace_reason=False)
        },
        # Nobody is internal (loopback would be), so that every client's own x-envoy-* and ids are dropped.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "300s",
        "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}},
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "server_header_transformation": "PASS_THROUGH",
        "drain_timeout": "5s",
    }


def _tls(tls: Tls) -> Json:
    certificate = {"certificate_chain": {"filename": str(tls.certificate)}, "private_key": {"filename": str(tls.key)}}
    context = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [certificate],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    }
    config = typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=context)
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _inner() -> Json:
    """Not a socket: reachable only through the cluster of the same name."""
    router = [http_filter("router", "router.v3.Router")]
    manager = typed(_HCM, stat_prefix="kserve", route_config=routes.kserve_answers(), http_filters=router)
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return typed(
        "envoy.config.listener.v3.Listener", name=routes.KSERVE_LISTENER, internal_listener={}, filter_chains=[chain]
    )


def _inner_cluster() -> Json:
    name = routes.KSERVE_LISTENER
    address = {"envoy_internal_address": {"server_listener_name": name}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    transport = typed(
        "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        transport_socket={
            "name": "envoy.transport_sockets.raw_buffer",
            "typed_config": typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
        },
    )
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "transport_socket": {"name": "envoy.transport_sockets.internal_upstream", "typed_config": transport},
    }


def arguments(folder: Folder, concurrency: int | None = None) -> list[str]:
    """Envoy's command line without the program: what it needs for the files above to work as they are meant."""
    threads = [] if concurrency is None else ["--concurrency", str(concurrency)]
    # Records of answers are read while traffic shifts: by default they would come 10 s late.
    flush = ["--file-flush-interval-msec", "100"]
    return ["-c", str(folder.bootstrap), "--disable-hot-restart", "--log-level", "warning", *flush, *threads]
