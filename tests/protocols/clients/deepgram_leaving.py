"""Deepgram's Python SDK 7, live, without asyncio and a farewell: ``URL PCM SPEED``."""

import json
import sys
import threading
import time
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

FRAME_BYTES = 3200

_, url, path, speed = sys.argv
places = {"base": url, "production": url.replace("http", "ws"), "agent": url, "agent_rest": url}
client = DeepgramClient(api_key="secret", environment=DeepgramClientEnvironment(**places))
pcm = Path(path).read_bytes()


def report(message):
    told = {"class": type(message).__name__, "message": json.loads(message.json())}
    print(json.dumps(told), flush=True)


with client.listen.v1.connect(model="nova-3", encoding="linear16", sample_rate=16000) as socket:
    socket.on(EventType.MESSAGE, report)
    listening = threading.Thread(target=socket.start_listening)
    listening.start()
    for start in range(0, len(pcm), FRAME_BYTES):
        socket.send_media(pcm[start : start + FRAME_BYTES])
        time.sleep(FRAME_BYTES / 32_000 / float(speed))
    time.sleep(1.5)
listening.join(5)
print(json.dumps({"alive": listening.is_alive()}))
