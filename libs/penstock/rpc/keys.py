"""The platform's signing keys: ES256, made at first start, readable by their owner only.

Two are live at any time. The newest signs; the older one still verifies what it signed. A rotation (adding a key and
dropping the oldest) therefore ends no session, and whoever checks tokens always expects more than one key.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock.errors import FailedPrecondition

LIVE_KEYS = 2
ALGORITHM = "ES256"


@dataclass(frozen=True)
class Key:
    """One key pair; `kid` is the JWK thumbprint (RFC 7638), so it names the key wherever it is."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The half that verifies."""
        return self.private.public_key()

    def jwk(self) -> dict[str, str]:
        """The public half as a JSON Web Key."""
        return {**_bare_jwk(self.public), "kid": self.kid, "alg": ALGORITHM, "use": "sig"}


@dataclass(frozen=True)
class Keys:
    """The live keys, oldest first."""

    live: tuple[Key, ...]

    @property
    def signing(self) -> Key:
        """The key that signs: the newest."""
        return self.live[-1]

    def find(self, kid: str) -> Key | None:
        """The live key of that id, or None."""
        return next((key for key in self.live if key.kid == kid), None)

    def jwks(self) -> str:
        """The public keys as a JWKS document, as Envoy's jwt_authn takes it inline."""
        return json.dumps({"keys": [key.jwk() for key in self.live]})

    def derived(self, purpose: str) -> bytes:
        """A key of 32 bytes for another purpose, the same wherever these keys are."""
        number = self.signing.private.private_numbers().private_value
        return hmac.digest(number.to_bytes(32, "big"), b"penstock " + purpose.encode(), "sha256")

    @staticmethod
    def open(folder: Path) -> Keys:
        """The keys in `folder`, made there if it does not exist. Several processes may do this at once.

        Raises FailedPrecondition if somebody else could read them or one is damaged.
        """
        if not folder.exists():
            _create(folder)
        return Keys(tuple(_load(path) for path in sorted(folder.glob("*.pem"))) or _none(folder))

    @staticmethod
    def generate() -> Keys:
        """Keys that live in memory only, for tests."""
        return Keys(tuple(_key(ec.generate_private_key(ec.SECP256R1())) for _ in range(LIVE_KEYS)))


def _none(folder: Path) -> tuple[Key, ...]:
    raise FailedPrecondition(f"{folder} holds no signing keys. Remove the empty folder, and new ones are made.")


def _create(folder: Path) -> None:
    """Make the keys in a folder beside it and rename it: whoever is first wins, and nobody sees half of them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}-{secrets.token_hex(6)}")
    draft.mkdir(mode=0o700)
    for number, key in enumerate(Keys.generate().live, 1):
        text = key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        descriptor = os.open(draft / f"{number:04}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)
        if not folder.exists():
            raise


def _load(path: Path) -> Key:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise FailedPrecondition(f"Others can read the signing key {path}: run `chmod 600 {path}`, or replace it.")
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise FailedPrecondition(f"The signing key {path} is damaged ({error}). Restore it from a backup.") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise FailedPrecondition(f"The signing key {path} is no P-256 key, which ES256 needs.")
    return _key(private)


def _key(private: ec.EllipticCurvePrivateKey) -> Key:
    canonical = json.dumps(_bare_jwk(private.public_key()), separators=(",", ":"), sort_keys=True)
    return Key(jwt.utils.base64url_encode(sha256(canonical.encode()).digest()).decode()[:22], private)


def _bare_jwk(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    full = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    return {name: str(full[name]) for name in ("crv", "kty", "x", "y")}
