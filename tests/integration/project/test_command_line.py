"""The command line against the services: resources as JSON, and what is wrong on stderr."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import nats
import pytest

from penstock.backing.stack import Stack
from penstock.events.credentials import external_permissions, inbox_prefix
from tests.integration.project.conftest import Api
from tests.support.hosts import World
from tests.support.pipeline_platform import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def penstock(world: World, *words: str, token: str = "") -> tuple[int, str, str]:
    """Run a command of the CLI against the services; its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "PENSTOCK_HOME": str(world.settings.home),
            "PENSTOCK_URL": f"http://{world.running.address}",
            **({"PENSTOCK_TOKEN": token} if token else {}),
        },
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


RUN = "import sys; from penstock.cli.main import main; main(sys.argv[1:])"


async def test_the_command_line_prints_resources_as_json_and_says_what_is_wrong(api: Api, world: World) -> None:
    create = ["admin", "token", "create", "--project", api.project, "--subject", "mo", "--role", "viewer"]
    code, out, _ = await penstock(world, *create, "--ttl", "1h", "--output", "json")
    made = json.loads(out)
    assert (code, made["subject"], made["role"]) == (0, "mo", "ROLE_VIEWER")
    code, out, _ = await penstock(world, "admin", "token", "list", "--project", api.project, "--output", "json")
    assert (code, [item["name"] for item in json.loads(out)["items"]]) == (0, [made["name"]])
    code, out, err = await penstock(world, *create, "--ttl", "900d")
    assert (code, out) == (2, "")
    assert "(field: token.ttl)" in err
    refused = await penstock(world, "admin", "token", "list", "--project", api.project, token=made["text"])
    assert (refused[0], refused[1]) == (4, "")
    assert "needs the role admin" in refused[2]
    wrong = await penstock(world, "pipeline", "list", token="nonsense")
    assert wrong[0] == 4
    assert "Traceback" not in wrong[2]
    code, _, err = await penstock(world, "pipeline", "show", "none", "--project", api.project)
    assert (code, "does not exist" in err) == (2, True)


async def test_the_command_line_says_which_dead_letter_it_retried_or_dropped(
    api: Api, world: World, servers: Stack
) -> None:
    """An event of Penstock's own type that comes from outside is one, each time that it is tried."""
    user = f"{api.project}_forger"
    file = servers.credentials(user, external_permissions(user, api.project))
    client = await nats.connect(servers.nats_url, user_credentials=str(file), inbox_prefix=inbox_prefix(user).encode())
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "dev.penstock.x.v1", "ce-source": "//c"}
    await client.request(f"penstock.{api.project}.external.a.b", b"{}", headers=headers, timeout=5)
    await client.close()
    common = ("--project", api.project, "--output", "json")

    async def dead() -> Any:
        code, out, _ = await penstock(world, "admin", "dead-letters", "list", "--service", "pipeline", *common)
        assert code == 0
        return next((item for item in json.loads(out)["items"] if item["event"]["project"] == api.project), None)

    letter = await eventually(dead)
    words = ("admin", "dead-letters", "retry", "pipeline", letter["id"])
    code, out, _ = await penstock(world, *words, *common)
    assert (code, json.loads(out)["id"]) == (0, letter["id"])

    async def dropped() -> bool:  # once it was tried, in vain
        done = await penstock(world, "admin", "dead-letters", "drop", "pipeline", letter["id"])
        return done == (0, f"dropped {letter['id']}\n", "")

    await eventually(dropped)
