"""The service as it is run: ``python -m services.diarizer``."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.audio import FloatArray
from services.common.channel import open_channel, serves
from tests.diarizer.harness import FINISH, converse, cut, flush, found, opening, read, read_rest
from voxmesh.diarizer.v1 import diarizer_pb2 as pb
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

SERVICE = "voxmesh.diarizer.v1.DiarizerService"


async def spawn(**variables: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DIARIZER_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.diarizer"),
        cwd=Path(__file__).parents[2],
        env=clean | variables,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(
    folder: Path, model: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    address = f"unix:{folder}/diarizer.sock"
    process = await spawn(
        DIARIZER_ADDRESS=address, DIARIZER_MODEL=str(model), DIARIZER_DRAIN_S="20"
    )
    try:
        yield process, address
    finally:
        if process.returncode is None:
            process.kill()
        # Also the pipe, which the loop would otherwise complain about.
        await process.communicate()


async def test_a_replica_that_is_told_to_stop_drains_its_streams(
    model_path: Path, call: FloatArray, tmp_path: Path
) -> None:
    heard = (call[: 16_000 * 10] * 32767).astype("<i2").tobytes()
    async with (
        running(tmp_path, model_path) as (process, address),
        open_channel(address) as channel,
    ):
        assert await serves(channel, SERVICE, timeout_s=30)
        assert await serves(channel, "", timeout_s=5)
        stream = rpc.DiarizerServiceStub(channel).Diarize()
        await stream.write(opening())
        assert (await read(stream)).HasField("opened")
        messages = list(cut(heard, 1600))
        for message in messages[:50]:
            await stream.write(message)
        await stream.write(flush(1))
        before: list[pb.DiarizeResponse] = []
        while not before or not before[-1].HasField("flushed"):
            before.append(await read(stream))

        process.send_signal(signal.SIGTERM)
        farewell = await read(stream)
        assert farewell.go_away.deadline.seconds == 20
        assert not await serves(channel, SERVICE, timeout_s=2)
        for message in [*messages[50:], FINISH]:
            await stream.write(message)
        after = await read_rest(stream)
        assert after[-1].HasField("finished")
        assert found([*before, *after])[-1][2] == 160_000
        # The last stream is gone: it exits long before the drain is over.
        assert process.stderr is not None
        logs, code = await asyncio.wait_for(
            asyncio.gather(process.stderr.read(), process.wait()), 5
        )
    assert code == 0
    lines = [json.loads(line) for line in logs.splitlines()]
    assert [line["event"] for line in lines] == [
        "model loaded",
        "serving",
        "stream opened",
        "draining",
        "stream finished",
    ]
    assert {line["service"] for line in lines} == {"diarizer"}
    assert lines[0]["engine"] == "online"


async def test_a_replica_serves_a_sortformer_where_the_folder_holds_one(
    nemotron_path: Path, call: FloatArray, tmp_path: Path
) -> None:
    heard = (call[: 16_000 * 5] * 32767).astype("<i2").tobytes()
    async with (
        running(tmp_path, nemotron_path) as (process, address),
        open_channel(address) as channel,
    ):
        assert await serves(channel, SERVICE, timeout_s=30)
        stub = rpc.DiarizerServiceStub(channel)
        responses = await converse(stub, [opening(), *cut(heard, 1600), FINISH])
        assert len({speaker for speaker, *_ in found(responses)}) >= 2
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        logs, code = await asyncio.wait_for(
            asyncio.gather(process.stderr.read(), process.wait()), 5
        )
    assert code == 0
    # Nothing but log lines: loading it shows no progress.
    lines = [json.loads(line) for line in logs.splitlines()]
    assert [lines[0]["event"], lines[0]["engine"]] == ["model loaded", "nemotron-toy/9+4"]


async def test_a_replica_without_streams_exits_at_once(model_path: Path, tmp_path: Path) -> None:
    async with (
        running(tmp_path, model_path) as (process, address),
        open_channel(address) as channel,
    ):
        assert await serves(channel, SERVICE, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"DIARIZER_WORKERS": "65"}, "DIARIZER_WORKERS: Input should be less than or equal to 64"),
        ({"DIARIZER_MAX_SPEAKERS": "61"}, "DIARIZER_MAX_SPEAKERS: Input should be less than"),
        ({"DIARIZER_LATENCY_MS": "100"}, "DIARIZER_LATENCY_MS: Input should be greater than or"),
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


async def cannot_start(folder: Path, model: str) -> str:
    """Why not."""
    process = await spawn(DIARIZER_MODEL=model, DIARIZER_ADDRESS=f"unix:{folder}/diarizer.sock")
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    line = json.loads(errors)
    assert line["event"] == "cannot start"
    return str(line["reason"])


async def test_a_model_that_is_not_there_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    assert "no model is called 'diarizer-of-tomorrow'" in await cannot_start(
        tmp_path, "diarizer-of-tomorrow"
    )


async def test_files_that_are_no_model_end_the_process_with_the_reason(
    model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "segmentation.bin").symlink_to(model_path / "segmentation.bin")
    # A state of another network.
    (tmp_path / "campplus.pt").symlink_to(model_path / "segmentation.bin")
    assert "the weights are not CAM++'s" in await cannot_start(tmp_path, str(tmp_path))
