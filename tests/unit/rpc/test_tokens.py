"""Keys and tokens without a server: how they are made, kept and refused."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path

import jwt
import pytest

from penstock.errors import FailedPrecondition, InvalidArgument, Unauthenticated
from penstock.rpc.caller import Caller, decode_on_behalf_of, encode_on_behalf_of
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import ServiceTokens, Tokens, ensure_home_token


def test_first_start_makes_two_keys_that_only_the_owner_can_read(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path / "keys")
    files = list((tmp_path / "keys").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert Keys.open(tmp_path / "keys").jwks() == keys.jwks()


def _open(folder: Path) -> str:
    return Keys.open(folder).jwks()


def test_processes_that_start_together_get_the_same_keys(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = pool.map(_open, [tmp_path / "keys"] * 8)
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_key_that_others_can_read_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    Keys.open(tmp_path / "keys")
    key = next((tmp_path / "keys").glob("*.pem"))
    key.chmod(0o644)
    with pytest.raises(FailedPrecondition, match="chmod 600"):
        Keys.open(tmp_path / "keys")
    key.chmod(0o600)
    key.write_text("nonsense")
    with pytest.raises(FailedPrecondition, match="damaged"):
        Keys.open(tmp_path / "keys")


def test_the_jwks_is_public_and_verifies_what_was_minted() -> None:
    tokens = Tokens(Keys.generate())
    jwks = json.loads(tokens.jwks())
    assert [set(key) for key in jwks["keys"]] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}] * 2
    text = tokens.mint("ann", "vision", "viewer", 60)
    kid = jwt.get_unverified_header(text)["kid"]
    public = jwt.PyJWKSet.from_json(tokens.jwks())[kid]
    claims = jwt.decode(text, public, algorithms=["ES256"], audience="penstock", issuer="penstock")
    assert claims["exp"] - claims["iat"] == 60
    assert {name: claims[name] for name in ("sub", "project", "role", "platform")} == {
        "sub": "ann",
        "project": "vision",
        "role": "viewer",
        "platform": False,
    }


def test_a_token_without_signature_or_of_another_algorithm_is_refused() -> None:
    tokens = Tokens(Keys.generate())
    good = tokens.mint("ann", "vision", "admin", 60)
    claims = jwt.decode(good, options={"verify_signature": False})
    kid = jwt.get_unverified_header(good)["kid"]
    for forged in (
        jwt.encode(claims, "", algorithm="none", headers={"kid": kid}),
        jwt.encode(claims, "guess-guess-guess-guess-guess-guess", algorithm="HS256", headers={"kid": kid}),
    ):
        with pytest.raises(Unauthenticated):
            tokens.verify(forged)


@pytest.mark.parametrize("claim", ["sub", "jti", "exp", "role", "project", "aud", "iss"])
def test_a_token_without_a_claim_or_with_another_audience_is_refused(claim: str) -> None:
    keys = Keys.generate()
    tokens = Tokens(keys)
    claims = jwt.decode(tokens.mint("ann", "vision", "admin", 60), options={"verify_signature": False})
    headers = {"kid": keys.signing.kid}
    without = {name: value for name, value in claims.items() if name != claim}
    with pytest.raises(Unauthenticated):
        tokens.verify(jwt.encode(without, keys.signing.private, algorithm="ES256", headers=headers))
    if claim in ("aud", "iss", "role"):
        other = {**claims, claim: "other"}
        with pytest.raises(Unauthenticated):
            tokens.verify(jwt.encode(other, keys.signing.private, algorithm="ES256", headers=headers))


def test_minting_refuses_what_no_token_may_have() -> None:
    tokens = Tokens(Keys.generate())
    for arguments in (("ann", "p", "root", 60.0), ("", "p", "viewer", 60.0), ("ann", "p", "viewer", 1e9)):
        with pytest.raises(InvalidArgument):
            tokens.mint(*arguments)


def test_the_home_token_is_kept_and_replaced_when_it_is_of_other_keys(tmp_path: Path) -> None:
    path, tokens = tmp_path / "token", Tokens(Keys.generate())
    first = ensure_home_token(path, tokens, "default")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_home_token(path, tokens, "default") == first
    caller = tokens.verify(first)
    assert (caller.platform, caller.role, caller.project) == (True, "admin", "default")
    second = ensure_home_token(path, Tokens(Keys.generate()), "default")
    assert second != first and path.read_text().strip() == second


def test_service_tokens_are_kept_until_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ServiceTokens(Tokens(Keys.generate()), "service:tuning", ttl=100)
    now = 1000.0
    monkeypatch.setattr("penstock.rpc.tokens.time.monotonic", lambda: now)
    first = source("training")
    assert source("training") == first != source("dataset")
    now += 76
    assert source("training") != first


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [
        (Caller("a", "vision", "admin", "t"), {"vision"}),
        (Caller("a", "vision", "admin", "t", platform=True), {"vision", "other", "-"}),
        (Caller("s", "", "service", "t"), {"vision", "other", "-"}),
        (Caller("s", "vision", "service", "t", on_behalf_of="ann"), {"vision"}),
        (Caller("a", "", "admin", "t"), set()),
    ],
)
def test_where_a_caller_may_act(caller: Caller, allowed: set[str]) -> None:
    assert {project for project in ("vision", "other", "-", "") if caller.may_act_in(project)} - {""} == allowed


def test_on_behalf_of_survives_any_subject() -> None:
    for subject in ("ann", "ann/bob", "äöü %2F", "a@b.c"):
        assert decode_on_behalf_of(encode_on_behalf_of("vision", subject)) == ("vision", subject)
    for broken in ("", "vision", "/ann", "vision/"):
        with pytest.raises(Unauthenticated):
            decode_on_behalf_of(broken)
