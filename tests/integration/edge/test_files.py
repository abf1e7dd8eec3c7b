"""What the edge's files say survives restarts, broken files and kills between any two of them."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import aiohttp
import pytest

from penstock.edge import clusters, files
from penstock.edge.files import replace_json
from tests.integration.edge.conftest import INFER, ModelServer, Platform, shift, slow

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_members_and_keys_survive_a_restart_of_envoy(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    generation = await shift(platform, pair[1].member())
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), {"t-lost"})
    await platform.edge.keys_applied()
    platform.stop(signal.SIGKILL)
    await platform.start()
    assert await platform.edge.admin.uptime() < 10
    assert await platform.edge.generation("alpha", "clf") == generation
    assert await slow(platform, http, 0) == "r2"
    headers = platform.headers(token_id="t-lost")
    async with http.post(platform.url + INFER, json={}, headers=headers) as response:
        assert response.status == 401


async def test_the_base_can_be_written_again_and_keeps_endpoints_and_denylist(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), {"t-lost"})
    platform.write_base()
    await asyncio.sleep(0.2)
    assert await slow(platform, http, 0) in ("r1", "r2")
    assert platform.edge.keys().denied == {"t-lost"}
    assert await platform.edge.admin.refused() == {}


async def test_a_broken_file_of_members_keeps_the_ones_before(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    await shift(platform, pair[0].member())
    file = platform.edge.folder.members / clusters.file_name("endpoint/alpha/clf/http")
    replace_json(file, {"version_info": "99", "resources": [{"@type": "type.googleapis.com/nothing"}]})
    await asyncio.sleep(0.1)
    assert await slow(platform, http, 0) == "r1"
    assert await platform.edge.generation("alpha", "clf") != 99
    await shift(platform, pair[1].member())
    assert await slow(platform, http, 0) == "r2"


async def test_a_kill_at_any_write_is_healed_by_saying_it_again(
    platform: Platform,
    http: aiohttp.ClientSession,
    pair: tuple[ModelServer, ModelServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new endpoint is three files; after a failure at each of them, the same call brings it about."""
    real, edge = files.replace, platform.edge
    reached = []
    for k in (1, 2, 3):
        seen: list[object] = []

        def failing(path: Any, content: bytes, k: int = k, seen: list[object] = seen) -> None:
            seen.append(path)
            if len(seen) == k:
                raise OSError("killed here")
            real(path, content)

        name = f"fresh{k}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "replace", failing)
            with pytest.raises(OSError, match="killed here"):
                edge.set_endpoint("alpha", name, [pair[0].member()], 5)
        reached.append(len(seen))
        assert await slow(platform, http, 0) in ("r1", "r2")
        edge.set_endpoint("alpha", name, [pair[0].member()], 5)
        await edge.applied("alpha", name, 5)
        assert await slow(platform, http, 0, f"/v2/models/{name}/infer") == "r1"
        edge.remove_endpoint("alpha", name)
    assert reached == [1, 2, 3]
