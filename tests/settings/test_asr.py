"""What each setting of the recogniser changes in what a client hears, or in how the model works."""

import asyncio
import os
import subprocess
import sys
import threading
import time
import wave
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.asr import __main__ as asr
from services.asr.config import Settings
from services.asr.events import Committed
from services.asr.load import Load
from services.asr.recognizer import Hypothesis, Task, Window
from services.asr.servicer import Paces
from services.asr.transcriber import Transcriber
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import SAMPLE_RATE_HZ, samples, seconds
from services.common.words import Word
from tests.asr.engines.adapter import write_adapter
from tests.settings.flips import Flip, environment, flips, load
from tests.settings.serving import begin_to_stop, serving, until
from voxmesh.asr.v1 import asr_pb2 as pb
from voxmesh.asr.v1 import asr_pb2_grpc as rpc
from voxmesh.common.v1 import audio_pb2, stage_pb2

SERVICE = "voxmesh.asr.v1.AsrService"
FINISH = pb.TranscribeRequest(finish=stage_pb2.Finish())
BEAT = samples(0.5)
ROOT = Path(__file__).parents[2]

Settle = Callable[..., Settings]
Call = grpc.aio.StreamStreamCall[pb.TranscribeRequest, pb.TranscribeResponse]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settle:
    """Settings with a model that is installed, and an address of the test's own."""

    def choose(**chosen: object) -> Settings:
        others = {"model": "tiny.en", "address": f"unix:{tmp_path}/asr.sock", **chosen}
        return load(Settings, monkeypatch, **others)

    return choose


class Metronome:
    """Hears a word at every half second, whatever is said."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.engine = "metronome"
        self.language_codes: tuple[str, ...] = ("en",)
        self.tasks: tuple[Task, ...] = (Task.TRANSCRIBE,)
        self.max_window_samples = samples(30)
        self.batches: list[Sequence[Window]] = []
        self.gate = threading.Event()
        """Cleared: it hangs."""
        self.gate.set()

    def bucket(self, _window: Window) -> Hashable:
        return 0

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        self.batches.append(windows)
        assert self.gate.wait(20), "the test left the model hanging"
        time.sleep(self.takes_s)
        return [self._hear(window) for window in windows]

    def _hear(self, window: Window) -> Hypothesis:
        end = window.first_sample + len(window.samples)
        beats = range(-(-window.first_sample // BEAT) * BEAT, end - BEAT + 1, BEAT)
        words = tuple(
            Word(f" {beat // BEAT}", beat, beat + BEAT, 1.0, (beat // BEAT,)) for beat in beats
        )
        return Hypothesis(words, "en", 1.0, 0.0, 0.0)


def opening(**config: Any) -> pb.TranscribeRequest:
    return pb.TranscribeRequest(open=pb.Open(session_id="s1", config=pb.TranscribeConfig(**config)))


def audio(first_s: float, end_s: float) -> pb.TranscribeRequest:
    frame = audio_pb2.AudioFrame(
        first_sample=samples(first_s), pcm=bytes(2 * samples(end_s - first_s))
    )
    return pb.TranscribeRequest(audio=frame)


def gap(first_s: float, end_s: float) -> pb.TranscribeRequest:
    left_out = audio_pb2.Gap(first_sample=samples(first_s), num_samples=samples(end_s - first_s))
    return pb.TranscribeRequest(gap=left_out)


async def converse(
    stub: rpc.AsrServiceStub, *messages: pb.TranscribeRequest
) -> list[pb.TranscribeResponse]:
    return [response async for response in stub.Transcribe(iter([*messages, FINISH]))]


async def end_of(call: Call) -> grpc.StatusCode:
    """Read all that comes; how it ended."""
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()


@asynccontextmanager
async def replica(model: Metronome, chosen: Settings) -> AsyncIterator[grpc.aio.Channel]:
    async with serving(asr.replica(model, chosen), chosen.address, SERVICE) as channel:
        model.batches.clear()
        yield channel


def lengths(model: Metronome) -> list[float]:
    """Of all windows that it was given, in seconds."""
    return [seconds(len(window.samples)) for batch in model.batches for window in batch]


def has_decoded(model: Metronome, num_windows: int) -> bool:
    return len(lengths(model)) == num_windows


# --- the replica


@flips("ASR", address={"one": ["one"], "other": ["other"]})
async def test_the_address_is_where_the_replica_is_reached(
    flip: Flip, settings: Settle, tmp_path: Path
) -> None:
    chosen = settings(address=f"unix:{tmp_path / flip.value}")
    async with replica(Metronome(), chosen) as channel:
        assert (await converse(rpc.AsrServiceStub(channel), opening()))[-1].HasField("finished")
        assert os.listdir(tmp_path) == flip.effect


@flips("ASR", model={"tiny.en": grpc.StatusCode.OK, "base": grpc.StatusCode.NOT_FOUND})
async def test_a_replica_serves_its_own_model_and_no_other(flip: Flip, settings: Settle) -> None:
    async with replica(Metronome(), settings(model=flip.value)) as channel:
        call = rpc.AsrServiceStub(channel).Transcribe(iter([opening(model="tiny.en"), FINISH]))
        assert await end_of(call) is flip.effect


@flips("ASR", max_streams={1: grpc.StatusCode.RESOURCE_EXHAUSTED, 2: grpc.StatusCode.OK})
async def test_one_stream_more_than_allowed_is_refused(flip: Flip, settings: Settle) -> None:
    async with replica(Metronome(), settings(max_streams=flip.value)) as channel:
        stub = rpc.AsrServiceStub(channel)
        first = stub.Transcribe()
        await first.write(opening())
        await first.read()
        second = stub.Transcribe(iter([opening(), FINISH]))
        assert await end_of(second) is flip.effect


@flips("ASR", drain_s={0: False, 20: True})
async def test_a_stopping_replica_lets_streams_finish_for_as_long_as_it_drains(
    flip: Flip, settings: Settle
) -> None:
    async with replica(Metronome(), settings(drain_s=flip.value)) as channel:
        call = rpc.AsrServiceStub(channel).Transcribe()
        await call.write(opening())
        await call.read()
        await begin_to_stop(channel)
        ended = asyncio.create_task(end_of(call))
        await asyncio.wait({ended}, timeout=0.3 if flip.effect else 10)
        assert ended.done() is not flip.effect
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(FINISH)
        assert (await ended is grpc.StatusCode.OK) is flip.effect


def heard_s() -> float:
    """Audio that all streams of this process have taken in."""
    return REGISTRY.get_sample_value("voxmesh_audio_seconds_total", {"stage": "asr"}) or 0.0


@flips("ASR", workers={1: 1, 2: 2}, max_batch={1: 1, 2: 2})
async def test_as_many_streams_are_decoded_at_once_as_workers_and_batches_allow(
    flip: Flip, settings: Settle
) -> None:
    model = Metronome()
    chosen = settings(**{"workers": 1, "max_batch": 1, flip.name: flip.value})
    async with replica(model, chosen) as channel:
        stub = rpc.AsrServiceStub(channel)
        model.gate.clear()
        before_s = heard_s()
        # The first ones keep the workers busy, and a batch can gather behind them.
        busy = [asyncio.create_task(converse(stub, opening(), audio(0, 1))) for _ in range(3)]
        await until(lambda: round(heard_s() - before_s) == len(busy))
        await until(lambda: len(model.batches) >= chosen.workers)
        await asyncio.sleep(0.1)  # for a batch too many to show
        at_once = len(model.batches)
        model.gate.set()
        await asyncio.gather(*busy)
    gathered = max(len(batch) for batch in model.batches)
    assert (at_once if flip.name == "workers" else gathered) == flip.effect


@flips("ASR", gap_s={2.0: [0.0, 4.0], 5.0: [0.0]})
async def test_a_long_gap_starts_a_new_window(flip: Flip, settings: Settle) -> None:
    model = Metronome()
    async with replica(model, settings(gap_s=flip.value)) as channel:
        await converse(rpc.AsrServiceStub(channel), opening(), audio(0, 1), gap(1, 4), audio(4, 5))
    starts = {seconds(window.first_sample) for batch in model.batches for window in batch}
    assert sorted(starts) == flip.effect


@flips("ASR", file_window_s={10: 10.0, 28: 28.0})
async def test_a_file_is_decoded_in_windows_of_its_own_length(flip: Flip, settings: Settle) -> None:
    model = Metronome()
    async with replica(model, settings(file_window_s=flip.value)) as channel:
        frames = [audio(start, start + 10) for start in range(0, 40, 10)]
        await converse(rpc.AsrServiceStub(channel), opening(pace=pb.PACE_FILE), *frames)
    assert max(lengths(model)) == flip.effect


# --- the cadence


def follow(
    paces: Paces, duration_s: float, *, file: bool = False, model: Metronome | None = None
) -> tuple[list[float], list[float]]:
    """Play audio into a stream, a tenth of a second at a time.

    Returns:
        The lengths of the windows, and how long after its end each word was committed, in seconds.

    """
    model = model or Metronome()
    transcriber = Transcriber(paces.file if file else paces.live, language_code="en")
    lags: list[float] = []
    tenth = np.zeros(samples(0.1), np.float32)
    for first in range(0, samples(duration_s), len(tenth)):
        transcriber.push(first, tenth)
        while (step := transcriber.next_step(samples(1))) is not None:
            assert step.window is not None
            [hypothesis] = model.recognize([step.window])
            for event in transcriber.complete(step, hypothesis):
                if isinstance(event, Committed):
                    lags += [seconds(step.end_sample - word.end_sample) for word in event.words]
    return lengths(model), lags


@flips("ASR", min_step_ms={500: [0.5, 1.0, 1.5, 2.0, 2.5, 3.0], 1500: [1.5, 3.0]})
async def test_a_stream_alone_is_decoded_after_so_much_new_audio(
    flip: Flip, settings: Settle
) -> None:
    model = Metronome()
    async with replica(model, settings(min_step_ms=flip.value)) as channel:
        call = rpc.AsrServiceStub(channel).Transcribe()
        await call.write(opening())
        for half in range(6):
            await call.write(audio(half / 2, (half + 1) / 2))
            due = sum(length <= (half + 1) / 2 for length in flip.effect)
            await until(partial(has_decoded, model, due))
        assert lengths(model) == flip.effect
        call.cancel()


@flips("ASR", max_step_ms={1000: 1.0, 5000: 5.0})
def test_however_many_streams_speak_they_are_decoded_this_often(
    flip: Flip, settings: Settle
) -> None:
    load = Load(asr.limits(settings(max_step_ms=flip.value, workers=1)))
    load.decoded(1, 0.4, live=True)
    assert load.step_s(100) == flip.effect


@flips("ASR", admit_step_ms={800: grpc.StatusCode.RESOURCE_EXHAUSTED, 5000: grpc.StatusCode.OK})
async def test_a_stream_is_refused_with_which_steps_would_have_to_be_longer(
    flip: Flip, settings: Settle
) -> None:
    model = Metronome(takes_s=0.4)
    async with replica(
        model, settings(**{flip.name: flip.value}, max_step_ms=5000, workers=1)
    ) as channel:
        stub = rpc.AsrServiceStub(channel)
        first = stub.Transcribe()
        await first.write(opening())
        await first.read()
        assert await end_of(stub.Transcribe(iter([opening(), FINISH]))) is flip.effect
        first.cancel()


@flips("ASR", window_s={6: True, 24: False})
def test_a_live_window_grows_to_its_length_and_no_further(flip: Flip, settings: Settle) -> None:
    windows, _ = follow(asr.paces(settings(window_s=flip.value)), 20)
    assert (max(windows) <= 6) is flip.effect


@flips("ASR", agreed_threshold={0: 1.0, 100: 2.0})
def test_a_shared_word_waits_until_so_many_frames_are_behind_it(
    flip: Flip, settings: Settle
) -> None:
    chosen = settings(policy="local-agreement", agreed_threshold=flip.value)
    _, lags = follow(asr.paces(chosen), 10)
    assert min(lags) == flip.effect


@flips("ASR", frame_threshold={0: 0.0, 100: 2.0})
def test_attention_alone_waits_until_so_many_frames_are_behind_a_word(
    flip: Flip, settings: Settle
) -> None:
    _, lags = follow(asr.paces(settings(policy="align-att", frame_threshold=flip.value)), 10)
    assert min(lags) == flip.effect


@flips("ASR", policy={"either": 0.0, "align-att": 0.0, "local-agreement": 1.0})
def test_a_word_is_certain_by_the_policy_that_was_chosen(flip: Flip, settings: Settle) -> None:
    chosen = settings(policy=flip.value, agreed_threshold=0, frame_threshold=0)
    _, lags = follow(asr.paces(chosen), 10)
    assert min(lags) == flip.effect


@flips("ASR", agreement={2: 1.0, 4: 3.0})
def test_so_many_hypotheses_have_to_share_a_word(flip: Flip, settings: Settle) -> None:
    chosen = settings(policy="local-agreement", agreed_threshold=0, agreement=flip.value)
    _, lags = follow(asr.paces(chosen), 10)
    assert min(lags) == flip.effect


@flips("ASR", pause_ms={0: False, 300: True})
def test_quiet_makes_a_stream_be_decoded_before_its_step(flip: Flip, settings: Settle) -> None:
    transcriber = Transcriber(asr.paces(settings(pause_ms=flip.value)).live, language_code="en")
    word = np.full(samples(0.3), 0.5, np.float32)
    transcriber.push(0, np.pad(word, (0, samples(0.35))))
    assert (transcriber.next_step(samples(1)) is not None) is flip.effect


@flips("ASR", pause_probability={0.5: 1, 0.95: 0})
def test_so_probable_are_words_that_are_committed_at_a_pause(flip: Flip, settings: Settle) -> None:
    cadence = asr.paces(settings(pause_ms=300, pause_probability=flip.value)).live
    transcriber = Transcriber(cadence, language_code="en")
    word = Word(" word", 0, samples(0.3), 0.9, (1,))
    transcriber.push(0, np.pad(np.full(samples(0.3), 0.5, np.float32), (0, samples(0.35))))
    step = transcriber.next_step(samples(1))
    assert step is not None
    transcriber.complete(step, Hypothesis((word,), "en", 1.0, 0.0, 0.0))
    assert len(transcriber.state.committed) == flip.effect


@flips("ASR", sure_ms={300: 1, 400: 0})
def test_so_long_a_quiet_makes_probable_words_certain(flip: Flip, settings: Settle) -> None:
    cadence = asr.paces(settings(sure_ms=flip.value)).live
    transcriber = Transcriber(cadence, language_code="en")
    word = Word(" word", 0, samples(0.3), 0.9, (1,))
    transcriber.push(0, np.pad(np.full(samples(0.3), 0.5, np.float32), (0, samples(0.35))))
    step = transcriber.next_step(samples(1))
    assert step is not None
    transcriber.complete(step, Hypothesis((word,), "en", 1.0, 0.0, 0.0))
    assert len(transcriber.state.committed) == flip.effect


@flips("ASR", quiet_ms={400: 1, 900: 0})
def test_so_long_a_quiet_makes_improbable_words_certain(flip: Flip, settings: Settle) -> None:
    cadence = asr.paces(settings(pause_ms=300, quiet_ms=flip.value)).live
    transcriber = Transcriber(cadence, language_code="en")
    word = Word(" word", 0, samples(0.3), 0.1, (1,))
    for first_s, heard in ((0.0, np.full(samples(0.3), 0.5)), (0.3, np.zeros(samples(0.5)))):
        transcriber.push(samples(first_s), heard.astype(np.float32))
        while (step := transcriber.next_step(samples(1))) is not None:
            hypothesis = Hypothesis((word,), "en", 1.0, 0.0, 0.0)
            transcriber.complete(step, hypothesis if step.window is not None else None)
    assert len(transcriber.state.committed) == flip.effect


@flips("ASR", context_tokens={0: 0, 5: 5})
def test_so_many_tokens_of_what_was_said_are_given_with_a_window(
    flip: Flip, settings: Settle
) -> None:
    model = Metronome()
    follow(asr.paces(settings(context_tokens=flip.value)), 40, model=model)
    assert len(model.batches[-1][0].prompt) == flip.effect


@flips("ASR", keep_ms={0: 0.0, 2000: 2.0})
def test_the_last_words_of_a_full_window_are_kept_for_the_next(
    flip: Flip, settings: Settle
) -> None:
    _, lags = follow(asr.paces(settings(keep_ms=flip.value)), 30, file=True)
    assert min(lags) == flip.effect


# --- the model


@pytest.fixture
def reading(speech: Path) -> FloatArray:
    """Four seconds of a person reading.  -> (num_samples,) float32."""
    with wave.open(str(speech / "beckett.wav")) as recording:
        pcm = np.frombuffer(recording.readframes(4 * SAMPLE_RATE_HZ), "<i2")
    return pcm.astype(np.float32) / np.float32(32768)


def hear(chosen: Settings, reading: FloatArray) -> list[object]:
    """All that a model says about some stretches of a recording."""
    model = asr.recognizer(chosen)
    borders = ((0.0, 1.5), (0.0, 2.5), (0.5, 3.1), (1.25, 3.75))
    return [
        (
            [(word.text, word.first_sample, round(word.probability, 4)) for word in said.words],
            round(said.no_speech_probability, 4),
        )
        for first, end in borders
        for said in model.recognize([Window(reading[samples(first) : samples(end)], 0)])
    ]


@pytest.mark.usefixtures("models")
@flips(
    "ASR",
    beam_size={1: True, 5: False},
    pad_s={3.0: True, 0.0: False},
    min_window_s={4.0: True, 0.0: False},
)
def test_what_is_heard_depends_on_the_beam_and_the_pad(
    flip: Flip, settings: Settle, reading: FloatArray
) -> None:
    # Some of what is read is longer than the least window with the pad, and some shorter without.
    usual = {"engine": "ctranslate2", "threads": 1, "pad_s": 3.0, "min_window_s": 4.0}
    usual |= {"pad_s": 1.0} if flip.name == "min_window_s" else {}
    chosen = usual | {flip.name: flip.value}
    assert (hear(settings(**chosen), reading) == hear(settings(**usual), reading)) is flip.effect


@pytest.mark.usefixtures("models")
@flips("ASR", bucket_s={1.0: True, 0.1: False})
def test_windows_of_one_bucket_share_a_batch(flip: Flip, settings: Settle) -> None:
    model = asr.recognizer(settings(engine="ctranslate2", min_window_s=0, bucket_s=flip.value))
    short, long = (Window(np.zeros(samples(s), np.float32), 0) for s in (1.2, 1.7))
    assert (model.bucket(short) == model.bucket(long)) is flip.effect


@pytest.mark.usefixtures("models")
@flips("ASR", engine={"auto": "onnx", "ctranslate2": "ctranslate2", "torch": "torch"})
def test_the_engine_is_the_one_that_is_chosen(flip: Flip, settings: Settle) -> None:
    assert asr.recognizer(settings(engine=flip.value)).engine.startswith(f"{flip.effect}/cpu/")


@flips("ASR", alignment_heads={"": True, "[[0, 0]]": False})
def test_words_have_their_times_from_the_heads_that_are_named(
    flip: Flip, settings: Settle, reading: FloatArray
) -> None:
    usual = settings(engine="torch")
    assert (
        hear(settings(alignment_heads=flip.value, engine="torch"), reading) == hear(usual, reading)
    ) is flip.effect


@flips("ASR", lora={"": True, "adapter": False})
def test_an_adapter_changes_what_is_heard(
    flip: Flip,
    settings: Settle,
    reading: FloatArray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_adapter(tmp_path / "adapter", "model.encoder.layers.0.fc1", shape=(1536, 384))
    monkeypatch.chdir(tmp_path)
    usual = hear(settings(engine="torch"), reading)
    assert (hear(settings(lora=flip.value, engine="torch"), reading) == usual) is flip.effect


@pytest.mark.usefixtures("models")
@flips("ASR", compute_type={"int8": "int8", "float32": "float32"})
def test_the_model_computes_with_the_numbers_chosen(flip: Flip, settings: Settle) -> None:
    # CTranslate2 says what it has made of the choice: int8 comes with a float type beside it.
    assert (
        asr.recognizer(settings(compute_type=flip.value))
        .engine.split("/")[2]
        .startswith(flip.effect)
    )


@pytest.mark.usefixtures("models")
@flips("ASR", device={"cpu": "cpu", "cuda": "cuda"})
def test_the_model_runs_where_it_is_told_to_or_nowhere(flip: Flip, settings: Settle) -> None:
    try:
        where = asr.recognizer(settings(device=flip.value)).engine.split("/")[1]
    except DeviceError as error:
        where = "cuda" if "cannot be loaded on cuda: CUDA" in str(error) else ""
    assert where == flip.effect


@pytest.mark.usefixtures("models")
@flips("ASR", model={"tiny.en": "", "empty": "has no model.bin"})
def test_the_model_is_what_is_loaded(
    flip: Flip, settings: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    failure = ""
    try:
        asr.recognizer(settings(model=flip.value))
    except ModelError as error:
        failure = str(error)
    assert flip.effect in failure
    assert bool(failure) is bool(flip.effect)


BUSY = """
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np, psutil
from services.asr.__main__ import recognizer
from services.asr.config import Settings
from services.asr.load import Load
from services.asr.recognizer import Window
model = recognizer(Settings())
noise = np.random.default_rng(0).normal(0, 0.1, 128_000).astype(np.float32)
loaded = {thread.id: thread.user_time for thread in psutil.Process().threads()}
callers = {threading.get_native_id()}
def recognize(number):
    callers.add(threading.get_native_id())
    model.recognize([Window(noise, 0)])
with ThreadPoolExecutor(2) as pool:
    list(pool.map(recognize, range(4)))
    threads = psutil.Process().threads()
used = [t.user_time - loaded.get(t.id, 0) for t in threads if t.id not in callers]
print(sum(time > max(used) / 4 for time in used))
"""
"""Two windows at a time, in a process of its own: how many threads of the model were busy."""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells threads' times by their ids")
@pytest.mark.usefixtures("models")
@flips("ASR", workers={1: 1, 2: 2}, threads={1: 1, 2: 2})
def test_the_model_uses_as_many_cores_as_it_is_given(flip: Flip) -> None:
    # The threads of ONNX Runtime take turns: of them, more are busy than cores.
    engine = {"model": "tiny.en", "engine": "ctranslate2"}
    chosen = {**engine, "workers": 1, "threads": 1, flip.name: flip.value}
    # numpy has threads too, which are not the model's.
    variables = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment(Settings, **chosen)
    done = subprocess.run(
        [sys.executable, "-c", BUSY],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stdout) == flip.effect
