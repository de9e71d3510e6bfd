"""The service as it is run: ``python -m services.translator``."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from services.common.channel import open_channel, serves
from tests.translator.harness import FINISH, converse, opening, read, read_rest, source
from voxmesh.translator.v1 import translator_pb2_grpc as rpc

SERVICE = "voxmesh.translator.v1.TranslatorService"


async def spawn(**variables: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if name[:11] != "TRANSLATOR_"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.translator"),
        cwd=Path(__file__).parents[2],
        env=clean | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_replica_translates_drains_and_prints_nothing_but_its_log(tmp_path: Path) -> None:
    """P14, too: models of others print; this service does not, and logs no text."""
    address = f"unix:{tmp_path}/translator.sock"
    process = await spawn(TRANSLATOR_ADDRESS=address)
    try:
        async with open_channel(address) as channel:
            assert await serves(channel, SERVICE, timeout_s=30)
            stub = rpc.TranslatorServiceStub(channel)
            said = [source("Yes. Good morning,"), source("my friend.", 3), FINISH]
            responses = await converse(stub, [opening(), *said])
            assert "".join(one.commit.text for one in responses) == " Sim. Bom dia, meu amigo."
            call = stub.Translate()
            await call.write(opening("pt", "en"))
            assert (await read(call)).HasField("opened")
            process.send_signal(signal.SIGTERM)
            assert (await read(call)).HasField("go_away")
            await call.write(source("Bom dia."))
            await call.write(FINISH)
            rest = await read_rest(call)
            assert "".join(one.commit.text for one in rest) == " Good morning."
            output, log = await asyncio.wait_for(process.communicate(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
    assert output == b""
    lines = [json.loads(line) for line in log.splitlines()]
    assert [lines[0]["event"], lines[0]["engine"]] == ["model loaded", "firefox-en-pt"]
    assert not {"morning", "amigo", "Bom"} & set(log.decode().replace('"', " ").split())


@pytest.mark.parametrize(
    ("variables", "code", "reason"),
    [
        ({"TRANSLATOR_HELD_BACK": "41"}, 2, "TRANSLATOR_HELD_BACK: Input should be less than"),
        ({"TRANSLATOR_MODEL": "babel"}, 1, "no model is called 'babel'"),
    ],
)
async def test_what_keeps_it_from_starting_is_said(
    variables: dict[str, str], code: int, reason: str
) -> None:
    process = await spawn(**variables)
    _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == code
    assert reason in log.decode()
    assert "Traceback" not in log.decode()
