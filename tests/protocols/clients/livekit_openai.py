"""LiveKit's OpenAI plugin: recordings, and live audio in 10 ms frames.

``livekit_openai.py BASE_URL KEY AUDIO``, where the audio is 24 kHz PCM. Of the models that are
asked for, one leaves it to the gateway where turns end, and one to the plugin's own VAD.
"""

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

from livekit import rtc
from livekit.agents.stt import SpeechEventType
from livekit.agents.utils import http_context
from livekit.plugins import openai

BASE_URL, KEY, AUDIO = sys.argv[1:]
RATE_HZ = 24_000
FRAME_SAMPLES = RATE_HZ // 100
SPEED = 4.0
QUIET_S = 2.0


def told(model, what, event):
    texts = [alternative.text for alternative in event.alternatives]
    languages = [alternative.language for alternative in event.alternatives]
    shown = {"text": " ".join(texts), "language": ",".join(filter(None, languages))}
    print(json.dumps({"model": model, "what": what, **shown}), flush=True)


def frames(audio):
    for start in range(0, len(audio), 2 * FRAME_SAMPLES):
        data = audio[start : start + 2 * FRAME_SAMPLES]
        yield rtc.AudioFrame(data, RATE_HZ, 1, len(data) // 2)


async def recognise(audio, model):
    stt = openai.STT(base_url=BASE_URL, api_key=KEY, model=model, use_realtime=False)
    told(model, "recognised", await stt.recognize(list(frames(audio))))


async def listen(model, stream, said):
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                event = await anext(stream)
                if event.type is not SpeechEventType.RECOGNITION_USAGE:
                    told(model, event.type.value, event)
                continue
        if said.is_set():
            return


async def converse(audio, model):
    stt = openai.STT(base_url=BASE_URL, api_key=KEY, model=model, use_realtime=True)
    said = asyncio.Event()
    async with stt.stream() as stream, asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(model, stream, said))
        for frame in frames(audio):
            stream.push_frame(frame)
            await asyncio.sleep(0.01 / SPEED)
        said.set()


async def main(audio):
    async with http_context.open():
        await asyncio.gather(
            *(recognise(audio, model) for model in ("gpt-4o-mini-transcribe", "whisper-1")),
            *(converse(audio, model) for model in ("gpt-transcribe", "gpt-realtime-whisper")),
        )


asyncio.run(main(Path(AUDIO).read_bytes()))
