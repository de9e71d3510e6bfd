import asyncio
from pathlib import Path

import av
import numpy as np
import pytest

from services.common.audio import FloatArray, pcm_to_float
from services.common.errors import DeviceError
from services.common.timeline import SAMPLE_RATE_HZ, seconds
from services.vad.batcher import Batcher
from services.vad.detector import WINDOW_SAMPLES, fresh_memory
from services.vad.endpointer import SpeechEnded, SpeechStarted
from services.vad.silero import SileroDetector
from services.vad.stream import Stream
from tests.vad.harness import DEFAULTS, running


def windows_of(samples: FloatArray) -> FloatArray:
    whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
    return samples[:whole].reshape(-1, WINDOW_SAMPLES)


def alone(detector: SileroDetector, windows: FloatArray) -> tuple[list[float], FloatArray]:
    memory = fresh_memory(detector)[np.newaxis]
    probabilities = []
    for window in windows:
        [probability], memory = detector.classify(window[np.newaxis], memory)
        probabilities.append(float(probability))
    return probabilities, memory[0]


async def speech_spans(detector: SileroDetector, samples: FloatArray) -> list[tuple[int, int]]:
    """Starts and ends of speech, audio coming in messages of 100 ms."""
    async with running(Batcher(detector, threads=1)) as batcher:
        stream = Stream(batcher, DEFAULTS, 0, None)
        events = []
        for first in range(0, len(samples), 1600):
            events += await stream.audio(first, samples[first : first + 1600])
        events += await stream.finish()
    starts = [event.first_sample for event in events if isinstance(event, SpeechStarted)]
    ends = [event.end_sample for event in events if isinstance(event, SpeechEnded)]
    return list(zip(starts, ends, strict=True))


def test_a_batch_answers_each_stream_as_if_it_were_alone(
    silero: SileroDetector, beckett: bytes
) -> None:
    windows = windows_of(pcm_to_float(beckett))
    num_streams, num_steps = 32, 8
    starts = [index * 9 for index in range(num_streams)]
    memory = np.stack([fresh_memory(silero)] * num_streams)
    batched = []
    for step in range(num_steps):
        batch = np.stack([windows[start + step] for start in starts])
        probabilities, memory = silero.classify(batch, memory)
        batched.append(probabilities)
    for index, start in enumerate(starts):
        expected, remembered = alone(silero, windows[start : start + num_steps])
        assert [float(step[index]) for step in batched] == expected
        assert (memory[index] == remembered).all()


async def test_the_batcher_answers_many_streams_as_if_each_were_alone(
    silero: SileroDetector, beckett: bytes
) -> None:
    windows = windows_of(pcm_to_float(beckett))
    # Of many lengths, so that streams drop out of the batches one by one.
    parts = [windows[index : index + 3 + index % 20] for index in range(70)]
    async with running(Batcher(silero, threads=2)) as batcher:
        answers = await asyncio.gather(
            *(batcher.classify(part, fresh_memory(silero)) for part in parts)
        )
    for part, (probabilities, memory) in zip(parts, answers, strict=True):
        expected, remembered = alone(silero, part)
        assert probabilities == expected
        assert (memory == remembered).all()


async def test_a_person_reading_is_heard_between_the_breaths(
    silero: SileroDetector, beckett: bytes
) -> None:
    samples = pcm_to_float(beckett)
    spans = await speech_spans(silero, samples)
    loudness = np.sqrt((windows_of(samples) ** 2).mean(axis=1))
    spoken = np.zeros(len(loudness), bool)
    for first, end in spans:
        spoken[first // WINDOW_SAMPLES : end // WINDOW_SAMPLES] = True
    assert len(spans) == 6, "six phrases: 'Ever tried. Ever failed. ...'"
    assert loudness[spoken].mean() > 5 * loudness[~spoken].mean()
    # Nearly all of its energy lies in what is called speech.
    assert (loudness[spoken] ** 2).sum() > 0.98 * (loudness**2).sum()


async def test_silence_holds_no_speech(silero: SileroDetector) -> None:
    assert await speech_spans(silero, np.zeros(20 * SAMPLE_RATE_HZ, np.float32)) == []


async def test_noise_holds_next_to_no_speech(silero: SileroDetector, shared_data: Path) -> None:
    spoken_s = {}
    total_s = 0.0
    for path in sorted((shared_data / "noise").glob("*.flac")):
        samples = decode(path)
        total_s += seconds(len(samples))
        spans = await speech_spans(silero, samples)
        spoken_s[path.stem] = seconds(sum(end - first for first, end in spans))
    assert len(spoken_s) == 10
    # Parts of one piece of music pass for speech: 1.1 s in a minute of all clips.
    assert {name for name, length_s in spoken_s.items() if length_s} <= {"vibe-ace"}
    assert sum(spoken_s.values()) < 1.5 * total_s / 60


def decode(path: Path) -> FloatArray:
    """A recording -> (num_samples,) float32 at 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
    with av.open(str(path)) as container:
        frames = [
            out.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for out in resampler.resample(frame)
        ]
    return np.concatenate([*frames, *(out.to_ndarray()[0] for out in resampler.resample(None))])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("not a model")
    with pytest.raises(DeviceError, match="cannot be loaded"):
        SileroDetector(path)


def test_a_model_that_fails_is_a_device_error(silero: SileroDetector) -> None:
    windows = np.zeros((1, WINDOW_SAMPLES), np.float32)
    memory = np.full((1, silero.memory_size), np.nan, np.float32)
    with pytest.raises(DeviceError, match="no number"):
        silero.classify(windows, memory)
