"""The values that the edge is told: members of an endpoint, certificates, what is denied."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import InvalidArgument
from penstock.names import check_id


@dataclass(frozen=True)
class Member:
    """One revision's server behind an endpoint.

    `weight` is its share among the endpoint's members; 0 drains it: it gets nothing new, keeps what it has, and its
    active requests stay countable.
    """

    revision: int
    http_port: int
    grpc_port: int
    weight: int = 1
    host: str = "127.0.0.1"  # an IP address: EDS knows no names

    def __post_init__(self) -> None:
        if self.revision < 1 or self.weight < 0:
            raise InvalidArgument("A member needs a revision >= 1 and a weight >= 0.", field="members")
        check_port(self.http_port, "members.http_port")
        check_port(self.grpc_port, "members.grpc_port")
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise InvalidArgument(f"'{self.host}' is not an IP address.", field="members.host") from error


@dataclass(frozen=True)
class Attempts:
    """What became of what a member was sent since Envoy knows it: `failed` (5xx, no answer) of `count`.

    A request counts here even if another member answered it in the end. `ejected`: for its errors it is left out now.
    """

    count: int = 0
    failed: int = 0
    ejected: bool = False


@dataclass(frozen=True)
class Tls:
    """A certificate chain and its key, PEM files that Envoy reads."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Keys:
    """With what tokens are checked: `jwks` (JSON text of public keys) and the ids (`jti`) of revoked tokens."""

    jwks: str
    denied: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for jti in self.denied:
            if not re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", jti):
                raise InvalidArgument(f"'{jti[:80]}' cannot be the id of a token.", field="denied")


@dataclass(frozen=True)
class EndpointKey:
    """An endpoint is its project and its id: the id alone means nothing at the edge."""

    project: str
    endpoint: str

    def __post_init__(self) -> None:
        check_id(self.project, "project")
        check_id(self.endpoint, "endpoint")

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"projects/{self.project}/endpoints/{self.endpoint}"


def check_port(port: int, name: str) -> int:
    """Accept a TCP port; raises InvalidArgument."""
    if not 1 <= port <= 65535:
        raise InvalidArgument(f"{port} is not a port: use 1 to 65535.", field=name)
    return port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host` (an IP address or `localhost`)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
