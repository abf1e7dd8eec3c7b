"""Access tokens: JWTs that the platform signs itself, and that the edge and every service check for themselves."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import jwt

from penstock.errors import InvalidArgument, Unauthenticated
from penstock.rpc.caller import ADMIN, ROLES, SERVICE, Caller
from penstock.rpc.keys import ALGORITHM, Keys
from penstock.runtime.files import replace_text

ISSUER = AUDIENCE = "penstock"
CLOCK_SKEW_SECONDS = 5
MAX_TTL_SECONDS = 366 * 24 * 3600
MAX_CACHED = 1024
_REQUIRED = ["iss", "aud", "sub", "jti", "iat", "exp", "role", "project"]


class Tokens:
    """Mints and verifies tokens with one set of keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._verified: dict[str, Caller] = {}  # checking a signature costs more than a small call does

    def jwks(self) -> str:
        """The public keys, as a JWKS document."""
        return self._keys.jwks()

    def mint(
        self,
        subject: str,
        project: str,
        role: str,
        ttl: float,
        platform: bool = False,
        token_id: str | None = None,
        issued: float | None = None,
    ) -> str:
        """A signed token. `ttl` is in seconds from `issued` on (Unix time; now if not given).

        `token_id` is its `jti`, made here if not given.

        Raises InvalidArgument for an unknown role, an empty subject or a ttl beyond a year.
        """
        if role not in ROLES:
            raise InvalidArgument(f"'{role}' is no role: use viewer, editor or admin.", field="role")
        if not subject:
            raise InvalidArgument("A token needs a subject: who uses it.", field="subject")
        if ttl > MAX_TTL_SECONDS:
            raise InvalidArgument("A token lives a year at most.", field="ttl")
        issued = time.time() if issued is None else issued
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "project": project,
            "role": role,
            "platform": platform,
            "jti": token_id or new_token_id(),
            "iat": int(issued),
            "exp": int(issued + ttl),
        }
        signing = self._keys.signing
        return jwt.encode(claims, signing.private, algorithm=ALGORITHM, headers={"kid": signing.kid})

    def verify(self, text: str) -> Caller:
        """Who the token belongs to. Raises Unauthenticated, saying why it is not good."""
        found = self._verified.get(text)
        if found is None:
            found = self._check(text)
            if len(self._verified) >= MAX_CACHED:
                self._verified.clear()
            self._verified[text] = found
        if found.expires + CLOCK_SKEW_SECONDS <= time.time():
            self._verified.pop(text, None)
            raise Unauthenticated("The token has expired: ask for a new one (`penstock admin token create`).")
        return found

    def _check(self, text: str) -> Caller:
        if not text:
            raise Unauthenticated("There is no token: send `authorization: Bearer <token>` (PENSTOCK_TOKEN).")
        try:
            kid = jwt.get_unverified_header(text).get("kid", "")
            key = self._keys.find(kid)
            if key is None:
                raise Unauthenticated("The token was signed by a key that is not (or no longer) this platform's.")
            claims = jwt.decode(
                text,
                key.public,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            text = "The token has expired: ask for a new one (`penstock admin token create`)."
            raise Unauthenticated(text) from error
        except jwt.InvalidSignatureError as error:
            raise Unauthenticated("The token's signature is wrong: it was changed after it was made.") from error
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"The token is not valid: {error}.") from error
        return _caller(claims)


def _caller(claims: dict[str, Any]) -> Caller:
    if claims["role"] not in ROLES:
        raise Unauthenticated(f"The token's role '{str(claims['role'])[:20]}' is unknown here.")
    return Caller(
        subject=str(claims["sub"]),
        project=str(claims["project"]),
        role=claims["role"],
        token_id=str(claims["jti"]),
        platform=claims.get("platform") is True,
        expires=float(claims["exp"]),
    )


def new_token_id() -> str:
    """A random id that is valid in the resource name of a token."""
    return "t" + secrets.token_hex(9)


def ensure_home_token(path: Path, tokens: Tokens, project: str, ttl: float = 365 * 24 * 3600) -> str:
    """The platform token of an embedded home, kept in `path` with mode 0600; made anew if absent or no longer good."""
    if path.exists():
        text = path.read_text().strip()
        try:
            tokens.verify(text)
        except Unauthenticated:
            pass  # of another home, or expired: the file is ours to replace
        else:
            return text
    text = tokens.mint("home", project, ADMIN, ttl, platform=True)
    replace_text(path, text + "\n")
    return text


class ServiceTokens:
    """The tokens that a service sends with its calls: short-lived, minted when needed, one per called service."""

    def __init__(self, tokens: Tokens, subject: str, ttl: float = 600) -> None:
        self._tokens, self._subject, self._ttl = tokens, subject, ttl
        self._minted: dict[str, tuple[float, str]] = {}

    def __call__(self, service: str) -> str:
        """A token for calls to `service` that is good for at least a quarter of its life."""
        minted = self._minted.get(service)
        if minted is None or minted[0] < time.monotonic():
            text = self._tokens.mint(self._subject, "", SERVICE, self._ttl)
            minted = self._minted[service] = (time.monotonic() + self._ttl * 0.75, text)
        return minted[1]
