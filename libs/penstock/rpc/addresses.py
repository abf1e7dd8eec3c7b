"""Where servers listen and clients connect: without TLS, on this machine only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

from penstock.errors import InvalidArgument


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a server: its certificate chain and private key."""

    certificate: Path
    key: Path

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC needs to listen with TLS."""
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())])


def split(address: str, field: str = "address") -> tuple[str, int]:
    """Host and port of `host:port` (IPv6 in brackets). Raises InvalidArgument."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"'{address}' is no address: use host:port, such as 127.0.0.1:8420.", field=field)
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address stays on this machine."""
    if address.startswith("unix:"):
        return True
    host, _ = split(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: who knows where it leads


def check_listen(address: str, *, tls: bool) -> None:
    """Refuse to listen beyond this machine without TLS. Raises InvalidArgument."""
    if not tls and not is_loopback(address):
        raise InvalidArgument(
            f"Listening on {address} without TLS would show tokens and data to the network: use 127.0.0.1, or give a "
            "certificate and key (PENSTOCK_TLS_CERTIFICATE, PENSTOCK_TLS_KEY).",
            field="listen",
        )


def check_connect(address: str, *, tls: bool) -> None:
    """Refuse to send a token beyond this machine without TLS. Raises InvalidArgument."""
    if not tls and not is_loopback(address):
        raise InvalidArgument(
            f"Connecting to {address} without TLS would send the token in the clear: set PENSTOCK_TLS_CA to the "
            "certificate authority of the platform.",
            field="address",
        )
