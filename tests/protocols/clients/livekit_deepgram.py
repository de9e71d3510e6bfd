"""LiveKit's plugin for Deepgram: ``URL PCM LANGUAGE``; then the audio as a recording."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
from livekit import rtc
from livekit.plugins import deepgram

RATE_HZ = 16_000
FRAME_SAMPLES = RATE_HZ // 100
SPEED = 6


def report(what, **told):
    print(json.dumps({"what": what, **told}), flush=True)


def frames(pcm):
    for start in range(0, len(pcm), 2 * FRAME_SAMPLES):
        data = pcm[start : start + 2 * FRAME_SAMPLES]
        yield rtc.AudioFrame(data, RATE_HZ, 1, len(data) // 2)


async def main(url, pcm, language):
    async with aiohttp.ClientSession() as session:
        stt = deepgram.STT(
            model="nova-3",
            language=language,
            base_url=f"{url}/v1/listen",
            api_key="secret",
            http_session=session,
            keyterm=["epoch"],
            enable_diarization=True,
            sample_rate=RATE_HZ,
        )
        stream = stt.stream()

        async def read():
            async for event in stream:
                told = event.alternatives[0] if event.alternatives else None
                text, speaker = (told.text, told.speaker_id) if told else ("", None)
                report(event.type.value, text=text, speaker=speaker)

        reading = asyncio.create_task(read())
        for number, frame in enumerate(frames(pcm)):
            stream.push_frame(frame)
            if number % 10 == 0:
                await asyncio.sleep(0.1 / SPEED)
        stream.flush()
        await asyncio.sleep(1)
        stream.end_input()
        await asyncio.wait_for(reading, 10)
        report("ended")
        recordings = deepgram.STT(
            base_url=f"{url}/v1/listen",
            api_key="secret",
            http_session=session,
            detect_language=True,
        )
        answer = await recordings.recognize(list(frames(pcm)))
        report("recording", text=answer.alternatives[0].text)


_, url, path, language = sys.argv
asyncio.run(main(url, Path(path).read_bytes(), language))
