"""Where requests go: one cluster per endpoint and protocol, one per pinned revision, one per service of ours.

An endpoint is one EDS cluster per protocol whose weighted members are the revisions, so that a request that a failing
member did not answer is retried on another one (no retry crosses clusters).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from penstock.edge.files import Json, discovery, from_file, http_filter, typed
from penstock.edge.model import EndpointKey, Member, check_port
from penstock.errors import InvalidArgument

Protocol = Literal["http", "grpc"]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")

PREDICTION_HEADER = "x-penstock-prediction"
# The scope of what we say about a member: read by routes (prediction header) and the access log.
METADATA = "penstock"
SHARING = {"share": "yes"}  # members with a weight, as a subset of Envoy's
# Far above what one machine's clients reach: these bound memory, the model servers queue by themselves.
LIMITS = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 8192, "max_retries": 1024}


def cluster_name(key: EndpointKey, protocol: Protocol, revision: int | None = None) -> str:
    """The name of an endpoint's cluster, or of one revision's own. `identity.lua` builds the same text."""
    middle = f"/{revision}" if revision is not None else ""
    return f"endpoint/{key.project}/{key.endpoint}{middle}/{protocol}"


def prefix(key: EndpointKey) -> str:
    """What the names of all clusters of an endpoint begin with."""
    return f"endpoint/{key.project}/{key.endpoint}/"


def file_name(cluster: str) -> str:
    """The file of a cluster's members: ids hold no dots, so dots can stand for slashes."""
    return cluster.replace("/", ".") + ".json"


def cluster_of(file: Path) -> str:
    """The cluster whose members are in `file`."""
    return file.name.removesuffix(".json").replace(".", "/")


def assignment(cluster: str, key: EndpointKey, members: Sequence[Member], generation: int) -> Json:
    """The members of one cluster, as the content of its file. `generation` shows up in Envoy's config_dump."""
    protocol = cluster.rsplit("/", 1)[1]
    hosts = [_member(key, m, m.grpc_port if protocol == "grpc" else m.http_port, generation) for m in members]
    resource = typed(
        "envoy.config.endpoint.v3.ClusterLoadAssignment", cluster_name=cluster, endpoints=[{"lb_endpoints": hosts}]
    )
    return discovery([resource], str(generation))


def _member(key: EndpointKey, member: Member, port: int, generation: int) -> Json:
    facts = {"revision": f"{key.name}/revisions/{member.revision}", "generation": str(generation)}
    return {
        "endpoint": {"address": socket(member.host, port)},
        # A weight of 0 is not allowed; a draining host gets nothing new and keeps its running requests.
        "health_status": "HEALTHY" if member.weight else "DRAINING",
        "load_balancing_weight": max(1, member.weight),
        "metadata": {"filter_metadata": {METADATA: facts, **({"envoy.lb": SHARING} if member.weight else {})}},
    }


def endpoint_cluster(cluster: str, members: Path) -> Json:
    """An endpoint's cluster, its members from the file `members`."""
    return {
        **_models(cluster),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": from_file(members)},
        "lb_policy": "ROUND_ROBIN",  # with weights; least-request would bend a canary's share by its speed
        # Once no member looks healthy, Envoy asks all of them (it panics), draining ones too. In a subset it asks all
        # of that: one that was ejected for its errors rather than nobody, but never one that should get nothing.
        "lb_subset_config": {
            "fallback_policy": "DEFAULT_SUBSET",
            "default_subset": SHARING,
            "subset_selectors": [{"keys": list(SHARING)}],  # no route uses it, but without one there are no subsets
        },
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 1},
            # By default changes of weight and health reach the workers up to 1 s after config_dump shows them.
            "update_merge_window": "0s",
        },
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "interval": "1s",
            "base_ejection_time": "3s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 100,
        },
    }


def revision_cluster(cluster: str, written: Json) -> Json:
    """One revision's own cluster, its member inline from a written file: a pinned revision does not change.

    Nothing to watch: each watched file costs Envoy one of the user's few inotify instances.
    """
    load = {key: value for key, value in written["resources"][0].items() if key != "@type"}
    return {**_models(cluster), "type": "STATIC", "load_assignment": load}


def is_revision(cluster: str) -> bool:
    """Whether a cluster's name is that of one revision's own."""
    return len(cluster.split("/")) == 5


def _models(cluster: str) -> Json:
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=cluster,
        connect_timeout="1s",
        circuit_breakers={"thresholds": [{**LIMITS, "track_remaining": True}]},
        typed_extension_protocol_options=_protocol(http2=cluster.endswith("/grpc"), http_filters=_name_prediction()),
    )


def _name_prediction() -> list[Json]:
    """Adds the prediction's name to what a member answers, and to nothing that Envoy answers by itself."""
    value = f"%UPSTREAM_METADATA({METADATA}:revision)%/predictions/%REQ(x-request-id)%"
    mutation = {
        "append": {
            "header": {"key": PREDICTION_HEADER, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    mutations = {"response_mutations": [mutation]}
    return [
        http_filter("header_mutation", "header_mutation.v3.HeaderMutation", mutations=mutations),
        http_filter("upstream_codec", "upstream_codec.v3.UpstreamCodec"),
    ]


def service_cluster(service: str, address: str) -> Json:
    """The cluster of one of our services at `host:port`; a DNS name is looked up again and again."""
    host, port = parse_address(address, f"services.{service}")
    name = service_name(service)
    member = {"endpoint": {"address": socket(host, port)}}
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=name,
        type="STATIC" if is_ip(host) else "STRICT_DNS",
        connect_timeout="1s",
        load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": [member]}]},
        circuit_breakers={"thresholds": [LIMITS]},
        typed_extension_protocol_options=_protocol(http2=True),
    )


def service_name(service: str) -> str:
    """The cluster of one of our services."""
    return f"service/{service}"


def _protocol(*, http2: bool, **more: Any) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    explicit: Json = {"http_protocol_options": {}}
    if http2:
        explicit = {"http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}}
    return {options: typed(options, explicit_http_config=explicit, **more)}


def socket(host: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": host, "port_value": port}}


def parse_address(address: str, name: str) -> tuple[str, int]:
    """Split `host:port` (`localhost` becomes an IP); raises InvalidArgument naming the field."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidArgument(f"'{address}' is not host:port.", field=name)
    host = host.strip("[]")
    return "127.0.0.1" if host == "localhost" else host, check_port(int(port), name)


def is_ip(host: str) -> bool:
    """Whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
