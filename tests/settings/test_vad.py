"""What each setting of the VAD changes in what a client hears from a replica."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
import pytest

from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.vad import __main__ as vad
from services.vad.config import Settings
from services.vad.detector import WINDOW_SAMPLES as W
from tests.settings.flips import Flip, flips, load
from tests.settings.serving import begin_to_stop, serving, until
from tests.vad.harness import FINISH, converse, cut, found, opening, read, read_rest, tone
from voxmesh.vad.v1 import vad_pb2_grpc as rpc

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "voxmesh.vad.v1.VadService"


class LevelDetector:
    """Takes the level of a window for the probability that it is speech."""

    name = "level"
    memory_size = 1

    def __init__(self) -> None:
        self.gate = threading.Event()
        """Cleared: it hangs."""
        self.gate.set()
        self.running = 0
        self._lock = threading.Lock()

    def is_running(self, times: int) -> bool:
        return self.running >= times

    def classify(self, windows: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        with self._lock:
            self.running += 1
        assert self.gate.wait(20), "the test left the model hanging"
        with self._lock:
            self.running -= 1
        return np.abs(windows).mean(axis=1), memory


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> LevelDetector:
    """What every replica of the test has for a model."""
    found = LevelDetector()
    monkeypatch.setattr(vad, "SileroDetector", lambda _path: found)
    return found


@asynccontextmanager
async def replica(chosen: Settings) -> AsyncIterator[rpc.VadServiceStub]:
    async with serving(vad.main(chosen), chosen.address, SERVICE) as channel:
        yield rpc.VadServiceStub(channel)


def settings(monkeypatch: pytest.MonkeyPatch, folder: Path, **chosen: object) -> Settings:
    # The model has to be a file, whatever it holds.
    chosen = {"address": f"unix:{folder}/vad.sock", "model": __file__, **chosen}
    return load(Settings, monkeypatch, **chosen)


SPEECH = tone(
    *((0, 10 * W), (0.6, 2 * W), (0, 30 * W)),
    *((0.6, 20 * W), (0.4, 20 * W), (0, 12 * W), (0.8, 10 * W)),
    *((0, 40 * W), (0.8, 150 * W), (0.6, W), (0.8, 99 * W), (0, 40 * W)),
)
"""A click; a sentence that grows faint, with a pause in it; eight seconds without a pause."""


@pytest.mark.usefixtures("detector")
@flips(
    "VAD",
    onset_threshold={0.5: [42, 104, 144, 394], 0.7: [94, 104, 144, 394]},
    offset_threshold={0.35: [42, 104, 144, 394], 0.45: [42, 62, 94, 104, 144, 394]},
    min_speech_ms={100: [42, 104, 144, 394], 60: [10, 12, 42, 104, 144, 394]},
    hangover_ms={700: [42, 104, 144, 394], 320: [42, 82, 94, 104, 144, 394]},
    max_speech_s={60: [42, 104, 144, 394], 5: [42, 104, 144, 294, 294, 394]},
)
async def test_where_speech_starts_and_ends_is_a_matter_of_settings(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, **{flip.name: flip.value})
    async with replica(chosen) as stub:
        events = found(await converse(stub, [opening(), *cut(SPEECH, 10 * W), FINISH]))
    assert [sample / W for _, sample in events] == flip.effect


@pytest.mark.usefixtures("detector")
@flips("VAD", address={"one": ["one"], "other": ["other"]})
async def test_the_address_is_where_the_replica_is_reached(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, address=f"unix:{tmp_path / flip.value}")
    async with replica(chosen) as stub:
        assert (await converse(stub, [opening(), FINISH]))[-1].HasField("finished")
        assert os.listdir(tmp_path) == flip.effect


@flips("VAD", model={"silero_vad.onnx": "", "broken.onnx": "broken.onnx cannot be loaded"})
async def test_the_model_is_what_is_loaded(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: "Callable[[str], Path]"
) -> None:
    (tmp_path / "silero_vad.onnx").symlink_to(models("silero-vad") / "silero_vad.onnx")
    (tmp_path / "broken.onnx").write_text("not a model")
    chosen = settings(monkeypatch, tmp_path, model=str(tmp_path / flip.value))
    failure = ""
    try:
        async with replica(chosen) as stub:
            assert (await converse(stub, [opening(), FINISH]))[-1].HasField("finished")
    except DeviceError as error:
        failure = str(error)
    assert flip.effect in failure
    assert bool(failure) is bool(flip.effect)


@pytest.mark.usefixtures("detector")
@flips("VAD", max_streams={1: grpc.StatusCode.RESOURCE_EXHAUSTED, 2: grpc.StatusCode.OK})
async def test_one_stream_more_than_allowed_is_refused(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with replica(settings(monkeypatch, tmp_path, max_streams=flip.value)) as stub:
        first = stub.Detect()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        second = stub.Detect()
        await second.write(opening())
        with suppress(grpc.aio.AioRpcError):
            await second.read()
            await second.write(FINISH)
            await read_rest(second)
        assert await second.code() is flip.effect


@flips("VAD", threads={1: 1, 2: 2})
async def test_the_model_runs_as_often_at_once_as_there_are_threads(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: LevelDetector
) -> None:
    async with replica(settings(monkeypatch, tmp_path, threads=flip.value)) as stub:
        detector.gate.clear()
        calls = [stub.Detect(), stub.Detect()]
        try:
            for number, call in enumerate(calls, start=1):
                await call.write(opening())
                assert (await read(call)).HasField("opened")
                for message in cut(SPEECH[: 20 * W], 10 * W):
                    await call.write(message)
                await until(partial(detector.is_running, min(number, flip.effect)))
            await asyncio.sleep(0.1)  # for a thread too many to show
            assert detector.running == flip.effect
        finally:
            detector.gate.set()


@pytest.mark.usefixtures("detector")
@flips("VAD", drain_s={0: False, 20: True})
async def test_a_stopping_replica_lets_streams_finish_for_as_long_as_it_drains(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, drain_s=flip.value)
    async with serving(vad.main(chosen), chosen.address, SERVICE) as channel:
        call = rpc.VadServiceStub(channel).Detect()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        await begin_to_stop(channel)
        rest = asyncio.create_task(read_rest(call))
        await asyncio.wait({rest}, timeout=0.3 if flip.effect else 10)
        assert rest.done() is not flip.effect
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(FINISH)
        with suppress(grpc.aio.AioRpcError):
            farewell, *_ = await rest
            assert farewell.go_away.deadline.seconds == flip.value
        assert (await call.code() is grpc.StatusCode.OK) is flip.effect
