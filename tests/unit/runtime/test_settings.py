"""Settings: what an environment says, and what is said about one that cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import InvalidArgument
from penstock.runtime.settings import Settings


def test_an_empty_environment_is_an_embedded_platform(tmp_path: Path) -> None:
    settings = Settings.from_environ({"PENSTOCK_HOME": str(tmp_path)})
    assert settings.home == tmp_path and settings.project == "default"
    assert settings.objects_url == f"file://{tmp_path}/objects"
    assert settings.nats_credentials is None and settings.addresses == {}
    assert (settings.log_level, settings.log_format) == ("info", "json")


def test_the_home_says_where_credentials_and_the_url_are(tmp_path: Path) -> None:
    (tmp_path / "nats" / "users").mkdir(parents=True)
    (tmp_path / "url").write_text("http://127.0.0.1:9999\n")
    settings = Settings.from_environ({"PENSTOCK_HOME": "/elsewhere"}, home=tmp_path)
    assert settings.nats_credentials == tmp_path / "nats" / "users"
    assert settings.url == "http://127.0.0.1:9999"


def test_addresses_are_read_by_service() -> None:
    settings = Settings.from_environ({"PENSTOCK_ADDRESSES": "training=127.0.0.1:1, tuning=[::1]:2"})
    assert settings.addresses == {"training": "127.0.0.1:1", "tuning": "[::1]:2"}


@pytest.mark.parametrize(
    "environ",
    [{"PENSTOCK_ADDRESSES": "training"}, {"PENSTOCK_LOG_LEVEL": "loud"}, {"PENSTOCK_LOG_FORMAT": "xml"}],
)
def test_a_value_that_cannot_be_meant_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Settings.from_environ(environ)
    assert caught.value.violations[0].field == next(iter(environ))


def test_unset_the_servers_are_those_of_the_home(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nats.json").write_text('{"facts": {"port": 21001}}')
    (tmp_path / "run" / "mongodb.json").write_text('{"facts": {"port": 21002}}')
    settings = Settings.from_environ({}, home=tmp_path)
    assert (settings.nats_url, settings.mongodb_uri) == ("nats://127.0.0.1:21001", "mongodb://127.0.0.1:21002")
    (tmp_path / "run" / "nats.json").write_text("{")
    assert Settings.from_environ({}, home=tmp_path).nats_url == "nats://127.0.0.1:4222"
    given = {"PENSTOCK_NATS_URL": "nats://n", "PENSTOCK_MONGODB_URI": "mongodb://m"}
    told = Settings.from_environ(given, home=tmp_path)
    assert (told.nats_url, told.mongodb_uri) == ("nats://n", "mongodb://m")
