"""The one port under bad input: path tricks, floods of headers, huge and malformed bodies; nothing of ours shows."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.message import Message

from tests.support.attacker import Rpc, Victim, all_rpcs, call, summary, together
from tests.support.rivals import make_project

RPCS = all_rpcs()
MEGABYTE = 1 << 20
INSIDE = re.compile(r"Traceback|site-packages|line \d+, in|pymongo|motor|asyncio|object at 0x|<class|DecodeError")


def raw(victim: Victim, data: bytes, seconds: float = 10) -> bytes:
    """What comes back for some bytes on a connection; a reset is an answer too."""
    host, port = victim.edge.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        try:
            connection.sendall(data)
            while not _whole(answer) and (chunk := connection.recv(1 << 16)):
                answer += chunk
        except (ConnectionError, TimeoutError):
            return answer or b"reset"
    return answer


def _whole(answer: bytes) -> bool:
    """Whether a response has come to its end; Envoy closes a refused connection a second later."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return length is not None and len(body) >= int(length[1])


def ask(victim: Victim, token: str, path: str, verb: str = "GET", headers: str = "", body: bytes = b"") -> bytes:
    """A request as the bytes that a careful client would never send."""
    head = f"{verb} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n{headers}"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return raw(victim, head.encode() + b"\r\n" + body)


def status(answer: bytes) -> int:
    return 0 if answer == b"reset" else int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def token(victim: Victim) -> str:
    """An admin of the project `edge`."""
    make_project(victim, "edge").close()
    return victim.token("edge", "admin")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/projects/default",
        "/v1/projects/%64efault",
        "/v1/projects/edge/../default",
        "/v1/projects/edge/%2e%2e/default",
        "/v1/projects/edge/.%2e/default",
        "/v1//projects//default",
        "//v1/projects/default",
        "/v1/projects/edge%2f..%2fdefault",
        "/v1/projects/edge/..%2fdefault",
        "/v1/projects/edge%5c..%5cdefault",
        "/v1/projects/edge\\..\\default",
        "/v1/projects/edge/datasets/%2e%2e/%2e%2e/default/datasets",
        "/v1/projects/DEFAULT",
        "/v1/projects/default;x=edge",
        "/v1/projects/default:x",
        "/v1/projects/-/datasets",
        "/v1/projects/*/datasets",
        "/v1/projects/edge%00",
        "/v1/projects/edge#/../default",
        "http://elsewhere/v1/projects/default",
        "/v1/projects/edge?name=projects/default",
        "/v1/projects/edge/datasets?parent=projects/default",
        "/v1/projects/edge/datasets?parent=projects/edge&parent=projects/default",
        "/v1/projects/default/v2/models/same/infer",
        "/v1/projects/edge/v2/../../default/v2/models/same",
        "/V1/projects/default",
        "/v1/projects",
        "/v1/deniedTokens",
        "/v1/services/project/deadLetters",
        "*",
        "edge",
    ],
)
def test_no_spelling_of_a_path_leads_into_another_project(victim: Victim, token: str, path: str) -> None:
    answer = ask(victim, token, path)
    assert status(answer) in (400, 403, 404), answer[:300]
    assert not INSIDE.search(answer.decode("utf-8", "replace"))


def test_the_same_paths_are_open_to_their_own_project(victim: Victim, token: str) -> None:
    for path in (
        "/v1/projects/edge",
        "//v1/projects/edge",
        "/v1/projects/default/../edge",
        "/v1/projects/edge/datasets",
    ):
        assert status(ask(victim, token, path)) == 200, path


def test_floods_of_headers_and_long_paths_are_cut_off(victim: Victim, token: str) -> None:
    path = "/v1/projects/edge"
    many = "".join(f"x-{n}: y\r\n" for n in range(500))
    assert status(ask(victim, token, path, headers=many)) == 431
    assert status(ask(victim, token, path, headers=f"x: {'y' * MEGABYTE}\r\n")) in (0, 431)
    assert status(ask(victim, token, f"{path}?{'y' * 100_000}")) in (0, 431)
    assert status(ask(victim, "y" * 50_000, path)) in (401, 431)
    # Between what the edge takes and what the services take, it is the services that refuse.
    assert status(ask(victim, token, path, headers=f"x: {'y' * 50_000}\r\n")) in (200, 429, 431)


def test_two_lengths_or_two_tokens_in_one_request_are_refused(victim: Victim, token: str) -> None:
    head = f"POST /v1/projects/edge/datasets HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n".encode()
    inner = b"0\r\n\r\nGET /v1/projects/default HTTP/1.1\r\nhost: x\r\n\r\n"
    for lengths in (
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 4\r\ncontent-length: 9\r\n",
    ):
        answer = raw(victim, head + lengths + b"\r\n" + inner)
        assert status(answer) == 400 and b"connection: close" in answer  # so what follows is never read
    stranger = victim.token("default", "admin")
    doubled = f"connection: close\r\nauthorization: Bearer {stranger}\r\n"
    assert status(ask(victim, token, "/v1/projects/edge", headers=doubled)) == 401
    assert status(ask(victim, token, "/v1/projects/default", headers=doubled)) == 401


def resident(victim: Victim, name: str) -> int:
    """MiB of memory that a process of the platform holds."""
    pid = json.loads((victim.home / "run" / f"{name}.json").read_text())["pid"]
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) >> 10


def test_huge_bodies_are_refused_and_held_by_nobody(victim: Victim, token: str) -> None:
    path = "/v1/projects/edge/datasets?dataset_id=big"
    before = {name: resident(victim, name) for name in ("envoy", "services")}
    huge = b'{"description":"' + b"y" * (40 * MEGABYTE) + b'"}'
    assert status(ask(victim, token, path, "POST", body=huge)) in (0, 413, 429)
    assert status(ask(victim, "x", path, "POST", body=huge)) in (0, 401)
    long = b'{"description":"' + b"y" * MEGABYTE + b'"}'
    answer = ask(victim, token, path, "POST", body=long)
    assert status(answer) == 400 and b"dataset.description" in answer
    assert status(ask(victim, token, "/v2/models/same/infer", "POST", body=huge)) in (0, 404, 413)
    after = {name: resident(victim, name) for name in before}
    assert all(after[name] - before[name] < 250 for name in after), (before, after)


async def test_a_client_that_never_finishes_hinders_nobody(victim: Victim, token: str) -> None:
    host, port = victim.edge.split(":")
    slow = [await asyncio.open_connection(host, int(port)) for _ in range(100)]
    for _, writer in slow:
        writer.write(b"POST /v1/projects/edge/datasets HTTP/1.1\r\nhost: x\r\ncontent-le")
    began = time.monotonic()
    assert status(await asyncio.to_thread(ask, victim, token, "/v1/projects/edge")) == 200
    assert time.monotonic() - began < 5
    for _, writer in slow:
        writer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"description": 7}',
        b'{"description": {"a": 1}}',
        b'{"description": "\\ud800"}',
        b'{"description": "\xff\xfe"}',
        b'{"labels": {"a": [1]}}',
        b'{"description":' + b"[" * 50_000,
        b'{"createTime": "yesterday"}',
        b'{"recordCount": 1e400}',
    ],
)
def test_malformed_json_is_the_client_s_error(victim: Victim, token: str, body: bytes) -> None:
    answer = ask(victim, token, "/v1/projects/edge/datasets?dataset_id=UPPER", "POST", body=body)
    assert status(answer) == 400, answer[:400]
    assert not INSIDE.search(answer.decode("utf-8", "replace")), answer[-400:]


def test_data_that_is_nested_too_deeply_is_the_client_s_error(victim: Victim, token: str) -> None:
    for depth in (30, 60, 90, 120, 5000):
        body = b'{"type":"com.example.deep","data":{"a":' + b"[" * depth + b"]" * depth + b"}}"
        answer = ask(victim, token, "/v1/projects/edge/events:publish", "POST", body=body)
        assert status(answer) in (200, 400), (depth, answer[:400])
        assert not INSIDE.search(answer.decode("utf-8", "replace")), answer[-400:]


def junk(rpc: Rpc, text: str) -> Message:
    """A request of the type, every text field of which holds the same junk."""
    message = rpc.request()
    for field in rpc.request.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, text)
        elif field.type == field.TYPE_BYTES and not field.is_repeated:
            setattr(message, field.name, text.encode())
        elif field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64) and not field.is_repeated:
            setattr(message, field.name, -1)
        elif field.message_type is not None and not field.is_repeated:
            getattr(message, field.name).SetInParent()
    return message


JUNK = [
    "",
    "x",
    "\x00",
    "é\u0301" * 40,
    "../../etc/passwd",
    "projects/edge/../default",
    "projects/edge/runs/x/y",
    "%00%ff",
    "{'$gt': ''}",
    '{"$where": "sleep(1000)"}',
    "'; DROP TABLE x; --",
    "${jndi:ldap://x}",
    "a" * 60_000,
]


async def test_junk_in_any_field_of_any_rpc_is_an_error_that_shows_nothing(victim: Victim, token: str) -> None:
    platform, service = victim.admin, victim.token("", "service")
    tokens = {"PLATFORM": platform, "INTERNAL": service}
    cases: list[tuple[Rpc, str, Message]] = []
    for rpc in RPCS:
        if rpc.path.endswith(("ResetGraph", "RecordAuditEntries", "WatchEvents")):
            continue  # these do what they are for, whatever the text
        who = tokens.get(rpc.access, victim.token("edge", "runner") if rpc.access == "RUNNER" else token)
        cases += [(rpc, who, junk(rpc, text)) for text in JUNK]
        good = [rpc.ask("edge") for _ in JUNK]
        named = set(rpc.variables("edge"))
        for request, text in zip(good, JUNK, strict=True):
            for field in rpc.request.DESCRIPTOR.fields:
                if field.type == field.TYPE_STRING and not field.is_repeated and field.name not in named:
                    setattr(request, field.name, text)
        cases += [(rpc, who, request) for request in good]
    async with grpc.aio.insecure_channel(victim.services) as channel:
        answers = await together(lambda c: call(channel, c[0], c[2], c[1]), cases)
    ours = {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "FAILED_PRECONDITION", "OK", "ALREADY_EXISTS"}
    wrong = [(c[0].path, str(c[2])[:150], a) for c, a in answers if a[0] not in ours or INSIDE.search(a[1])]
    assert not wrong, summary(wrong)
