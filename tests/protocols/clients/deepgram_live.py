"""Deepgram's Python SDK, 5 and later, live: ``URL PCM SPEED key=value...``.

Writes a line of JSON for every event, with the commands that were sent before it.
"""

import asyncio
import json
import sys
from collections import defaultdict
from pathlib import Path

from deepgram import AsyncDeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

try:
    from deepgram.extensions.types.sockets import ListenV1ControlMessage
except ImportError:
    ListenV1ControlMessage = None

FRAME_BYTES = 1600
BYTES_PER_S = 32_000


def environment(url):
    places = {"base": url, "production": url.replace("http", "ws"), "agent": url}
    try:
        return DeepgramClientEnvironment(**places, agent_rest=url)
    except TypeError:
        return DeepgramClientEnvironment(**places)


def options(written):
    """Repeated keys are lists."""
    values = defaultdict(list)
    for pair in written:
        key, _, value = pair.partition("=")
        values[key].append(value)
    return {key: value[0] if len(value) == 1 else value for key, value in values.items()}


async def command(socket, name):
    if ListenV1ControlMessage is not None:
        await socket.send_control(ListenV1ControlMessage(type=name))
        return
    said = {"KeepAlive": "keep_alive", "Finalize": "finalize", "CloseStream": "close_stream"}
    await getattr(socket, f"send_{said[name]}")()


async def main(url, pcm, speed, written):
    asked = []
    answered = asyncio.Event()

    def report(event, message=None):
        told = {"event": event, "asked": list(asked)}
        if message is not None:
            told["class"] = type(message).__name__
            told["message"] = message if isinstance(message, dict) else json.loads(message.json())
            if told["message"].get("from_finalize"):
                answered.set()
        print(json.dumps(told), flush=True)

    async def ask(socket, name):
        asked.append(name)
        await command(socket, name)

    client = AsyncDeepgramClient(api_key="secret", environment=environment(url))
    async with client.listen.v1.connect(**options(written)) as socket:
        socket.on(EventType.MESSAGE, lambda message: report("message", message))
        socket.on(EventType.ERROR, lambda error: report(f"error {error!r}"))
        socket.on(EventType.CLOSE, lambda _: report("close"))
        listening = asyncio.create_task(socket.start_listening())
        await ask(socket, "KeepAlive")
        for start in range(0, len(pcm), FRAME_BYTES):
            await socket.send_media(pcm[start : start + FRAME_BYTES])
            await asyncio.sleep(FRAME_BYTES / BYTES_PER_S / speed)
        await ask(socket, "Finalize")
        await asyncio.wait_for(answered.wait(), 5)
        await ask(socket, "CloseStream")
        await asyncio.wait_for(listening, 10)
        report("listened")


_, url, path, speed, *written = sys.argv
asyncio.run(main(url, Path(path).read_bytes(), float(speed), written))
