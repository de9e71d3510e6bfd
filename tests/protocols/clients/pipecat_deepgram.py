"""Pipecat's Deepgram service in a pipeline: ``URL PCM``. It is told when the speaker stops."""

import asyncio
import json
import sys
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
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.workers.runner import WorkerRunner

RATE_HZ = 16_000
FRAME_S = 0.02
FRAME_BYTES = round(FRAME_S * RATE_HZ) * 2
UTTERANCE_BYTES = round(4.6 * RATE_HZ) * 2
"""The speaker has just stopped then."""
SPEED = 4
ENOUGH_S = 40.0

logger.remove()
logger.add(sys.stderr, level="WARNING")
_, url, path = sys.argv
pcm = Path(path).read_bytes()[:UTTERANCE_BYTES]


class Watch(FrameProcessor):
    """Writes what passes."""

    def __init__(self):
        super().__init__()
        self.finalized = asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        observed = {"what": type(frame).__name__}
        if isinstance(frame, TranscriptionFrame):
            observed |= {"text": frame.text, "finalized": frame.finalized}
            print(json.dumps(observed), flush=True)
            if frame.finalized:
                self.finalized.set()
        elif isinstance(frame, InterimTranscriptionFrame):
            print(json.dumps(observed | {"text": frame.text}), flush=True)
        elif isinstance(frame, ErrorFrame):
            print(json.dumps(observed | {"error": frame.error}), flush=True)
        await self.push_frame(frame, direction)


async def main():
    service = DeepgramSTTService(
        api_key="secret",
        base_url=url.replace("http", "ws"),
        sample_rate=RATE_HZ,
        settings=DeepgramSTTService.Settings(
            model="nova-3-general",
            language="en-US",
            interim_results=True,
            smart_format=True,
            punctuate=True,
            keyterm=["epoch", "belief"],
            endpointing=300,
        ),
    )
    before, behind = Watch(), Watch()
    worker = PipelineWorker(
        Pipeline([before, service, behind]),
        cancel_on_idle_timeout=False,
        params=PipelineParams(audio_in_sample_rate=RATE_HZ),
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _started(_worker, _frame):
        started.set()

    async def say(audio):
        for start in range(0, len(audio), FRAME_BYTES):
            piece = audio[start : start + FRAME_BYTES]
            frame = InputAudioRawFrame(audio=piece, sample_rate=RATE_HZ, num_channels=1)
            await worker.queue_frame(frame)
            await asyncio.sleep(FRAME_S / SPEED)

    async def speak():
        await started.wait()
        await worker.queue_frame(VADUserStartedSpeakingFrame())
        await say(pcm)
        await worker.queue_frame(VADUserStoppedSpeakingFrame())
        await say(bytes(2 * RATE_HZ))
        async with asyncio.timeout(ENOUGH_S):
            await behind.finalized.wait()
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())


asyncio.run(main())
