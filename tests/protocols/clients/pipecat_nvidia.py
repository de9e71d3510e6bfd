"""Pipecat's NVIDIA services in a pipeline: ``pipecat_nvidia.py TARGET WAV LAST_WORD``."""

import asyncio
import json
import sys
import wave

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.nvidia.stt import NvidiaSegmentedSTTService, NvidiaSTTService
from pipecat.workers.runner import WorkerRunner

FRAME_S = 0.02
SILENCE_S = 1.5
ENOUGH_S = 40.0

logger.remove()
logger.add(sys.stderr, level="WARNING")
target, path, last_word = sys.argv[1:]
with wave.open(path) as file:
    rate, pcm = file.getframerate(), file.readframes(file.getnframes())
frame_bytes = int(rate * FRAME_S) * 2


class Watch(FrameProcessor):
    """Writes what passes, in either direction."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self.heard_all = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        observed = {"service": self._service, "what": type(frame).__name__}
        if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            print(json.dumps(observed | {"text": frame.text}), flush=True)
        elif isinstance(frame, ErrorFrame):
            print(json.dumps(observed | {"error": frame.error}), flush=True)
        if isinstance(frame, TranscriptionFrame) and last_word in frame.text:
            self.heard_all.set()
        await self.push_frame(frame, direction)


async def hold(name: str, service: FrameProcessor, *, audio: bytes, pace: float) -> None:
    """Say something to a service, and wait until it has understood the last of it."""
    before, behind = Watch(name), Watch(name)
    worker = PipelineWorker(
        Pipeline([before, service, behind]),
        cancel_on_idle_timeout=False,
        params=PipelineParams(audio_in_sample_rate=rate),
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _started(_worker: object, _frame: object) -> None:
        started.set()

    async def speak() -> None:
        await started.wait()
        await worker.queue_frame(VADUserStartedSpeakingFrame())
        for start in range(0, len(audio), frame_bytes):
            piece = audio[start : start + frame_bytes]
            frame = InputAudioRawFrame(audio=piece, sample_rate=rate, num_channels=1)
            await worker.queue_frame(frame)
            await asyncio.sleep(FRAME_S * pace)
        await worker.queue_frame(VADUserStoppedSpeakingFrame())
        for _ in range(int(SILENCE_S / FRAME_S)):
            frame = InputAudioRawFrame(audio=bytes(frame_bytes), sample_rate=rate, num_channels=1)
            await worker.queue_frame(frame)
            await asyncio.sleep(FRAME_S * pace)
        async with asyncio.timeout(ENOUGH_S):
            await behind.heard_all.wait()
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())


async def main() -> None:
    """Speak at four times the pace of speech, to the service that reads recordings much faster."""
    options = {"server": target, "use_ssl": False, "api_key": "secret"}
    await asyncio.gather(
        hold("streaming", NvidiaSTTService(**options), audio=pcm, pace=0.25),
        hold("segmented", NvidiaSegmentedSTTService(**options), audio=pcm, pace=0.02),
    )


asyncio.run(main())
