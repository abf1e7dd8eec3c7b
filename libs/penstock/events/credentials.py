"""Who may say what on NATS: users are minted by signature, so the server never learns of them beforehand.

NATS's decentralised authentication: an operator signs accounts, an account signs users, and a user's signed claims
carry what it may publish and subscribe. Only the accounts stand in the server's configuration. The keys lie in one
folder, mode 0600; whoever reads them can be anybody, so they never leave the machine that runs the platform.

External publishers have an account of their own, which reaches the platform's by one service import. Permissions alone
would not do: JetStream acknowledges to whatever reply subject a publisher names, so a publisher in the platform's
account could have that acknowledgement stored as somebody's event, or sent to the JetStream API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]

from penstock.errors import FailedPrecondition, InvalidArgument

_FILE = "authority.json"
_UNLIMITED = -1
_EXTERNAL = "penstock.*.external.>"


@dataclass(frozen=True)
class Authority:
    """The signing keys of one platform (nkey seeds) and the signed claims that its NATS server is started with."""

    account_seed: str
    operator_jwt: str
    account: str
    account_jwt: str
    system_account: str
    system_account_jwt: str
    operator_seed: str
    external_seed: str
    external_account: str
    external_account_jwt: str

    def __repr__(self) -> str:
        return f"Authority(account={self.account})"  # never the seeds: this may end in a log


@dataclass(frozen=True)
class Permissions:
    """Subjects, with NATS wildcards, that a user may publish to and subscribe to; nothing else is allowed.

    An `external` user lives in the account of programs outside, and reaches only `penstock.*.external.>`.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    external: bool = False


def create_authority(folder: Path) -> Authority:
    """The authority kept in `folder`, made at the first call. Safe if two do it at once: the first one wins.

    Raises FailedPrecondition if it is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = folder / f".{_FILE}.{secrets.token_hex(8)}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(_new_authority(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first: its keys are the keys
        finally:
            draft.unlink()
    try:
        return Authority(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise FailedPrecondition(
            f"NATS's signing keys in {path} are damaged: restore the file from a backup."
        ) from error


def server_config(authority: Authority) -> str:
    """The lines of a nats-server configuration that make it trust this authority and nobody else."""
    return (
        f"operator: {authority.operator_jwt}\n"
        f"system_account: {authority.system_account}\n"
        "resolver: MEMORY\n"
        "resolver_preload: {\n"
        f"  {authority.account}: {authority.account_jwt}\n"
        f"  {authority.external_account}: {authority.external_account_jwt}\n"
        f"  {authority.system_account}: {authority.system_account_jwt}\n"
        "}\n"
    )


def mint_user(
    authority: Authority,
    name: str,
    publish: Sequence[str],
    subscribe: Sequence[str],
    ttl: float | None = None,
    *,
    external: bool = False,
) -> str:
    """A new user's credentials, as the text of a `.creds` file.

    `ttl` is in seconds; without it the user does not expire. nats-py takes the file as `user_credentials`.
    An `external` user belongs to the account of programs outside.
    Raises InvalidArgument if `publish` or `subscribe` is empty: NATS would take that for "everything".
    """
    if not publish or not subscribe:
        raise InvalidArgument("a NATS user needs at least one subject to publish and one to subscribe", field="publish")
    user = _new_key(nkeys.PREFIX_BYTE_USER)
    claims: dict[str, Any] = {
        "pub": {"allow": list(publish)},
        "sub": {"allow": list(subscribe)},
        "subs": _UNLIMITED,
        "data": _UNLIMITED,
        "payload": _UNLIMITED,
        "type": "user",
        "version": 2,
    }
    seed = authority.external_seed if external else authority.account_seed
    token = _sign(seed, _public(user), name, claims, ttl=ttl)
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user}\n------END USER NKEY SEED------\n"
    )


def inbox_prefix(name: str) -> str:
    """The inbox prefix that a user must give its client; nobody else may read the replies that come there."""
    return f"_INBOX_{name}"


def external_permissions(name: str, project: str) -> Permissions:
    """What a program outside may do: publish events of its own project, and hear their acknowledgements."""
    return Permissions((f"penstock.{project}.external.>",), (f"{inbox_prefix(name)}.>",), external=True)


def service_permissions(service: str, *, publish: Sequence[str] = ()) -> Permissions:
    """What a service may do: publish its own events and `publish`, and consume any by JetStream."""
    inbox = inbox_prefix(service)
    return Permissions(
        (
            f"penstock.*.{service}.>",
            "$JS.API.>",
            "$JS.ACK.>",
            "$JS.FC.>",
            "$KV.>",
            f"{inbox}.>",
            f"penstock-replay.{service}.>",
            *publish,
        ),
        ("penstock.>", "$KV.>", f"{inbox}.>"),
    )


def mint(authority: Authority, name: str, permissions: Permissions, ttl: float | None = None) -> str:
    """`mint_user` with a `Permissions`."""
    return mint_user(authority, name, permissions.publish, permissions.subscribe, ttl, external=permissions.external)


def _new_authority() -> dict[str, str]:
    operator = _new_key(nkeys.PREFIX_BYTE_OPERATOR)
    platform, external, system = (_new_key(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(3))
    door = {"name": "external-events", "subject": _EXTERNAL, "type": "service"}
    platform_claims = _account_claims(jetstream=True) | {"exports": [door]}
    external_claims = _account_claims(jetstream=False) | {"imports": [{**door, "account": _public(platform)}]}
    return {
        "operator_seed": operator,
        "operator_jwt": _sign(
            operator,
            _public(operator),
            "penstock",
            {"type": "operator", "version": 2, "system_account": _public(system)},
        ),
        "account_seed": platform,
        "account": _public(platform),
        "account_jwt": _sign(operator, _public(platform), "penstock", platform_claims),
        "external_seed": external,
        "external_account": _public(external),
        "external_account_jwt": _sign(operator, _public(external), "external", external_claims),
        # Nobody keeps the system account's seed, so nobody can ever sign a user of it.
        "system_account": _public(system),
        "system_account_jwt": _sign(operator, _public(system), "system", _account_claims(jetstream=False)),
    }


def _account_claims(*, jetstream: bool) -> dict[str, Any]:
    unlimited = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"]
    if jetstream:
        unlimited += ["mem_storage", "disk_storage", "streams", "consumer"]
    limits: dict[str, Any] = {**dict.fromkeys(unlimited, _UNLIMITED), "wildcards": True}
    return {"limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "type": "account", "version": 2}


def _new_key(prefix: int) -> str:
    return bytes(nkeys.encode_seed(secrets.token_bytes(32), prefix)).decode()


def _public(seed: str) -> str:
    return bytes(nkeys.from_seed(seed.encode()).public_key).decode()


def _sign(seed: str, subject: str, name: str, nats: dict[str, Any], ttl: float | None = None) -> str:
    """A NATS JWT: like any other, but signed with an nkey and typed `ed25519-nkey`."""
    now = int(time.time())
    body: dict[str, Any] = {"iat": now, "iss": _public(seed), "name": name, "sub": subject, "nats": nats}
    if ttl is not None:
        body["exp"] = int(now + ttl)
    digest = hashlib.sha256(json.dumps(body).encode() + secrets.token_bytes(8)).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    message = _segment({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + _segment(body)
    signature = nkeys.from_seed(seed.encode()).sign(message)
    return (message + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def _segment(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")
