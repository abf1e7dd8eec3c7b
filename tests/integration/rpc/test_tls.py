"""Beyond this machine there is TLS or nothing, on both ends."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock.errors import InvalidArgument, Unavailable
from penstock.rpc.addresses import TlsFiles, is_loopback, split
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration, Server
from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import NAME, SERVICE, EchoServicer, Platform, messages, services

GET = messages.GetEchoRequest(name=NAME)


@pytest.fixture
def certificate(tmp_path: Path) -> TlsFiles:
    """A self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "penstock")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def test_with_a_certificate_any_address_may_be_listened_on(platform: Platform, certificate: TlsFiles) -> None:
    registration = Registration(services.add_EchoServiceServicer_to_server, EchoServicer(), SERVICE)
    server = Server("0.0.0.0:0", [registration], platform.tokens, platform.denylist, tls=certificate)
    await server.start()
    address = {"echo": f"127.0.0.1:{server.port}"}
    trusted = Channels(address, lambda _: platform.token(), ca=certificate.certificate)
    plain = Channels(address, lambda _: platform.token(), timeout=1)
    try:
        assert (await trusted.stub(services.EchoServiceStub, "echo").GetEcho(GET)).name == NAME
        with pytest.raises(Unavailable):
            await plain.stub(services.EchoServiceStub, "echo").GetEcho(GET)
    finally:
        await trusted.close()
        await plain.close()
        await server.stop(0)


@pytest.mark.parametrize("address", ["192.0.2.1:443", "platform.example.org:443"])
async def test_a_token_is_not_sent_beyond_this_machine_in_the_clear(address: str) -> None:
    channels = Channels({"echo": address}, lambda _: "token")
    with pytest.raises(InvalidArgument, match="in the clear"):
        await channels.stub(echo_service.services.EchoServiceStub, "echo").GetEcho(GET)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/penstock.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_what_stays_on_this_machine(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":80", "host:port", "127.0.0.1:70000"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="use host:port"):
        split(address)
