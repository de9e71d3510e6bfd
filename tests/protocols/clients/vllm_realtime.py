"""Speaks to ``/v1/realtime`` as vLLM's example client does, and writes every event that comes.

``vllm_realtime.py URL KEY AUDIO``, where the audio is 16 kHz PCM.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path

import websockets

URL, KEY, AUDIO = sys.argv[1:]
CHUNK_BYTES = 4096


async def main(audio):
    headers = {"Authorization": f"Bearer {KEY}"}
    async with websockets.connect(URL, additional_headers=headers) as socket:

        async def send(**event):
            await socket.send(json.dumps(event))

        async def receive():
            event = json.loads(await socket.recv())
            print(json.dumps(event), flush=True)
            return event

        await receive()
        await send(type="session.update", model="whisper-1")
        await send(type="input_audio_buffer.commit")
        for start in range(0, len(audio), CHUNK_BYTES):
            chunk = base64.b64encode(audio[start : start + CHUNK_BYTES]).decode()
            await send(type="input_audio_buffer.append", audio=chunk)
        await send(type="input_audio_buffer.commit", final=True)
        while (await receive())["type"] not in {"transcription.done", "error"}:
            pass


asyncio.run(main(Path(AUDIO).read_bytes()))
