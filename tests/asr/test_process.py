"""The service as it is run: ``python -m services.asr``; and its health when the device fails."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from services.asr.__main__ import replica
from services.asr.config import Settings
from services.asr.recognizer import Window
from services.common.audio import FloatArray
from services.common.channel import open_channel, serves
from services.common.errors import DeviceError
from services.common.timeline import samples
from services.common.words import text_of
from tests.asr.harness import ScriptedRecognizer
from tests.asr.replica import (
    FINISH,
    flush,
    opening,
    read,
    read_rest,
    read_until,
    recording,
    words,
)
from voxmesh.asr.v1 import asr_pb2_grpc as rpc

SERVICE = "voxmesh.asr.v1.AsrService"


async def spawn(**variables: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.asr"),
        cwd=Path(__file__).parents[2],
        env=clean | variables,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    address = f"unix:{folder}/asr.sock"
    process = await spawn(ASR_ADDRESS=address, ASR_MODEL="tiny.en", ASR_DRAIN_S="20")
    try:
        yield process, address
    finally:
        if process.returncode is None:
            process.kill()
        # Also the pipe, which the loop would otherwise complain about.
        await process.communicate()


@pytest.mark.usefixtures("tiny")
async def test_a_replica_that_is_told_to_stop_drains_its_streams(
    beckett: FloatArray, tmp_path: Path
) -> None:
    async with running(tmp_path) as (process, address), open_channel(address) as channel:
        assert await serves(channel, SERVICE, timeout_s=60)
        assert await serves(channel, "", timeout_s=5)
        call = rpc.AsrServiceStub(channel).Transcribe()
        await call.write(opening())
        assert (await read(call)).opened.model == "tiny.en"
        messages = list(recording(beckett[: samples(9)]))
        for message in messages[:45]:
            await call.write(message)
        await call.write(flush(1))
        before = await read_until(call, "flushed")

        process.send_signal(signal.SIGTERM)
        farewell = (await read_until(call, "go_away"))[-1]
        assert farewell.go_away.deadline.seconds == 20
        assert not await serves(channel, SERVICE, timeout_s=2)
        for message in [*messages[45:], FINISH]:
            await call.write(message)
        after = await read_rest(call)
        assert after[-1].HasField("finished")
        assert "better" in text_of(words([*before, *after])).lower()
        # The last stream is gone: it exits long before the drain is over.
        assert process.stderr is not None
        logs, code = await asyncio.wait_for(
            asyncio.gather(process.stderr.read(), process.wait()), 10
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
    assert "better" not in logs.decode().lower(), "what is said is in no log"


async def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    process = await spawn(ASR_MODEL="tiny.en", VOXMESH_MODELS=str(tmp_path))
    await expect_failure(process, "run `voxmesh pull tiny.en`")


async def test_an_unknown_model_says_which_there_are() -> None:
    process = await spawn(ASR_MODEL="enormous")
    await expect_failure(process, "no model is called 'enormous'; `voxmesh models` lists:")


async def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    await expect_failure(await spawn(ASR_MODEL=str(tmp_path)), "has no model.bin")


@pytest.mark.usefixtures("tiny")
async def test_numbers_that_the_device_lacks_end_the_process_with_the_reason() -> None:
    process = await spawn(ASR_MODEL="tiny.en", ASR_COMPUTE_TYPE="int8_float16")
    await expect_failure(process, "cannot be loaded on cpu")


async def expect_failure(process: asyncio.subprocess.Process, reason: str) -> None:
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    line = json.loads(errors)
    assert line["event"] == "cannot start"
    assert reason in line["reason"]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "ASR_MODEL: Field required"),
        ({"ASR_DEVICE": "tpu"}, "ASR_DEVICE: Input should be 'cpu', 'cuda' or 'mps' (got 'tpu')"),
        ({"ASR_WORKERS": "65"}, "ASR_WORKERS: Input should be less than or equal to 64"),
        ({"ASR_MAX_STREAMS": "0"}, "ASR_MAX_STREAMS: Input should be greater than 0"),
        ({"ASR_WINDOW_S": "31"}, "ASR_WINDOW_S: Input should be less than or equal to 30"),
        ({"ASR_WINDOW_S": "5", "ASR_KEEP_MS": "2501"}, "ASR_KEEP_MS: Value error, should be at"),
        ({"ASR_MIN_STEP_MS": "3000"}, "ASR_MAX_STEP_MS: Value error, should be no less than"),
        ({"ASR_MIN_STEP_MS": "0.5"}, "ASR_MIN_STEP_MS: Input should be a valid integer"),
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


async def becomes(channel: grpc.aio.Channel, healthy: bool) -> bool:
    for _ in range(100):
        if await serves(channel, SERVICE, timeout_s=1) is healthy:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_health_follows_the_device(tmp_path: Path) -> None:
    broken = False

    def fails(_calls: int, _windows: Sequence[Window]) -> bool:
        return broken

    model = ScriptedRecognizer([], fails=fails)
    chosen = Settings(model="script", address=f"unix:{tmp_path}/asr.sock", drain_s=0)
    task = asyncio.create_task(replica(model, chosen, probe_interval_s=0.1))
    async with open_channel(chosen.address) as channel:
        assert await becomes(channel, True)
        broken = True
        assert await becomes(channel, False)
        broken = False
        assert await becomes(channel, True)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(task, 10)


async def test_a_device_that_never_answered_serves_nobody(tmp_path: Path) -> None:
    model = ScriptedRecognizer([], fails=lambda _calls, _windows: True)
    chosen = Settings(model="script", address=f"unix:{tmp_path}/asr.sock")
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(replica(model, chosen), 10)
    assert caught.group_contains(DeviceError, match="the device is gone")
    assert not (tmp_path / "asr.sock").exists()
