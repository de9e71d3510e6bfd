"""Pipecat's realtime service for OpenAI in a pipeline.

``pipecat_openai.py URL KEY AUDIO``, where the audio is 24 kHz PCM. In one pipeline it is the
gateway that says when somebody has spoken, in the other one it is not.
"""

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

URL, KEY, AUDIO = sys.argv[1:]
RATE_HZ = 24_000
FRAME_S = 0.02
FRAME_BYTES = int(RATE_HZ * FRAME_S) * 2
SPEED = 4.0
QUIET_S = 2.0

logger.remove()
logger.add(sys.stderr, level="WARNING")


class Watch(FrameProcessor):
    """Writes what passes, in either direction."""

    def __init__(self, mode):
        super().__init__()
        self._mode = mode
        self.final = asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        what = type(frame).__name__
        if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            print(json.dumps({"mode": self._mode, "what": what, "text": frame.text}), flush=True)
        elif isinstance(frame, ErrorFrame):
            print(json.dumps({"mode": self._mode, "what": what, "error": frame.error}), flush=True)
        if isinstance(frame, TranscriptionFrame):
            self.final.set()
        await self.push_frame(frame, direction)


def service(mode):
    options = {"api_key": KEY, "base_url": URL}
    if mode == "server_vad":
        settings = OpenAIRealtimeSTTService.Settings(model="gpt-transcribe")
        options["turn_detection"] = {"type": "server_vad"}
    else:
        settings = OpenAIRealtimeSTTService.Settings(
            model="gpt-realtime-whisper", noise_reduction="near_field"
        )
    return OpenAIRealtimeSTTService(settings=settings, **options)


async def hold(mode, audio):
    before, behind = Watch(mode), Watch(mode)
    worker = PipelineWorker(
        Pipeline([before, service(mode), behind]),
        cancel_on_idle_timeout=False,
        params=PipelineParams(audio_in_sample_rate=RATE_HZ),
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _started(_worker, _frame):
        started.set()

    async def speak():
        await started.wait()
        if mode == "own_vad":
            await worker.queue_frame(VADUserStartedSpeakingFrame())
        for start in range(0, len(audio), FRAME_BYTES):
            piece = audio[start : start + FRAME_BYTES]
            frame = InputAudioRawFrame(audio=piece, sample_rate=RATE_HZ, num_channels=1)
            await worker.queue_frame(frame)
            await asyncio.sleep(FRAME_S / SPEED)
        if mode == "own_vad":
            await worker.queue_frame(VADUserStoppedSpeakingFrame())
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET_S):
                    await behind.final.wait()
                    behind.final.clear()
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())


async def main(audio):
    await asyncio.gather(*(hold(mode, audio) for mode in ("own_vad", "server_vad")))


asyncio.run(main(Path(AUDIO).read_bytes()))
