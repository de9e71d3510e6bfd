"""The service as it is run: ``python -m services.vad``."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.channel import open_channel, serves
from tests.vad.harness import FINISH, cut, flush, found, opening, read, read_rest
from voxmesh.vad.v1 import vad_pb2 as pb
from voxmesh.vad.v1 import vad_pb2_grpc as rpc

SERVICE = "voxmesh.vad.v1.VadService"


async def spawn(**variables: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VAD_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.vad"),
        cwd=Path(__file__).parents[2],
        env=clean | variables,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(
    folder: Path, model: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    address = f"unix:{folder}/vad.sock"
    process = await spawn(VAD_ADDRESS=address, VAD_MODEL=str(model), VAD_DRAIN_S="20")
    try:
        yield process, address
    finally:
        if process.returncode is None:
            process.kill()
        # Also the pipe, which the loop would otherwise complain about.
        await process.communicate()


async def test_a_replica_that_is_told_to_stop_drains_its_streams(
    model_path: Path, beckett: bytes, tmp_path: Path
) -> None:
    async with (
        running(tmp_path, model_path) as (process, address),
        open_channel(address) as channel,
    ):
        assert await serves(channel, SERVICE, timeout_s=30)
        assert await serves(channel, "", timeout_s=5)
        call = rpc.VadServiceStub(channel).Detect()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        messages = list(cut(beckett, 1600))
        for message in messages[:50]:
            await call.write(message)
        await call.write(flush(1))
        before: list[pb.DetectResponse] = []
        while not before or not before[-1].HasField("flushed"):
            before.append(await read(call))

        process.send_signal(signal.SIGTERM)
        farewell = await read(call)
        assert farewell.go_away.deadline.seconds == 20
        assert not await serves(channel, SERVICE, timeout_s=2)
        for message in [*messages[50:], FINISH]:
            await call.write(message)
        after = await read_rest(call)
        assert after[-1].HasField("finished")
        assert len(found([*before, *after])) == 8
        # The last stream is gone: it exits long before the drain is over.
        assert process.stderr is not None
        logs, code = await asyncio.wait_for(
            asyncio.gather(process.stderr.read(), process.wait()), 5
        )
    assert code == 0
    lines = [json.loads(line) for line in logs.splitlines()]
    assert [line["event"] for line in lines] == [
        "serving",
        "stream opened",
        "draining",
        "stream finished",
    ]
    assert {line["service"] for line in lines} == {"vad"}
    assert [line.get("session_id") for line in lines] == [None, "s1", None, "s1"]


async def test_a_replica_without_streams_exits_at_once(model_path: Path, tmp_path: Path) -> None:
    async with (
        running(tmp_path, model_path) as (process, address),
        open_channel(address) as channel,
    ):
        assert await serves(channel, SERVICE, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_killed_replica_leaves_an_error_that_can_be_retried(
    model_path: Path, tmp_path: Path
) -> None:
    async with (
        running(tmp_path, model_path) as (process, address),
        open_channel(address) as channel,
    ):
        assert await serves(channel, SERVICE, timeout_s=30)
        call = rpc.VadServiceStub(channel).Detect()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        process.kill()
        assert (await call.code()).name == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "VAD_MODEL: Field required"),
        ({"VAD_MODEL": "/no/such/file"}, "VAD_MODEL: Path does not point to a file"),
        ({"VAD_THREADS": "0"}, "VAD_THREADS: Input should be greater than or equal to 1 (got '0')"),
        ({"VAD_HANGOVER_MS": "0.4"}, "VAD_HANGOVER_MS: Input should be a valid integer"),
        ({"VAD_MAX_STREAMS": "0"}, "VAD_MAX_STREAMS: Input should be greater than 0"),
        ({"VAD_ONSET_THRESHOLD": "1"}, "VAD_ONSET_THRESHOLD: Input should be less than or equal"),
        ({"VAD_ONSET_THRESHOLD": "0.3"}, "VAD_OFFSET_THRESHOLD: Value error, should be at most"),
        ({"VAD_MAX_SPEECH_S": "4"}, "VAD_MAX_SPEECH_S: Input should be greater than or equal to 5"),
    ],
)
async def test_a_bad_setting_ends_the_process_with_its_reason(
    variables: dict[str, str], reason: str
) -> None:
    process = await spawn(**variables)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert reason in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_file_that_is_no_model_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("not a model")
    process = await spawn(VAD_MODEL=str(path), VAD_ADDRESS=f"unix:{tmp_path}/vad.sock")
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    line = json.loads(errors)
    assert line["event"] == "cannot start"
    assert f"{path} cannot be loaded" in line["reason"]
