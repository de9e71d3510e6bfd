"""Deepgram's Python SDK 3 and 4, live and recordings: ``URL PCM WAV``."""

import json
import sys
import threading
import time
from pathlib import Path

from deepgram import (
    DeepgramClient,
    DeepgramClientOptions,
    LiveOptions,
    LiveTranscriptionEvents,
    PrerecordedOptions,
)
from deepgram.clients.common.v1.errors import DeepgramApiError

FRAME_BYTES = 3200
SPEED = 6
UTTERANCES = 2
"""How often the end of one is waited for: then everything has been heard."""

_, url, pcm_path, wav_path = sys.argv
pcm = Path(pcm_path).read_bytes()
client = DeepgramClient("secret", DeepgramClientOptions(url=url, options={"keepalive": "true"}))
began = time.monotonic()
ended = threading.Semaphore(0)


def report(what, **told):
    print(json.dumps({"what": what, "at_s": time.monotonic() - began, **told}), flush=True)


def watch(socket, event):
    def handle(_client, *values, **named):
        told = next((value for value in (*values, *named.values())), None)
        report(event.value, message=told and json.loads(told.to_json()))
        if event is LiveTranscriptionEvents.UtteranceEnd:
            ended.release()

    socket.on(event, handle)


socket = client.listen.websocket.v("1")
for event in LiveTranscriptionEvents:
    watch(socket, event)
options = LiveOptions(
    model="nova-2",
    encoding="linear16",
    sample_rate=16000,
    channels=1,
    utterance_end_ms="1000",
    vad_events=True,
    endpointing=300,
    interim_results=True,
    keywords=["epoch:5"],
)
report("started", ok=socket.start(options, addons={"no_delay": "true"}))
for start in range(0, len(pcm), FRAME_BYTES):
    socket.send(pcm[start : start + FRAME_BYTES])
    time.sleep(FRAME_BYTES / 32_000 / SPEED)
for _ in range(UTTERANCES):
    ended.acquire(timeout=45)
report("finalizing")
socket.finalize()
time.sleep(1)
report("finishing")
report("finished", ok=socket.finish())

recordings = client.listen.rest.v("1")
asked = PrerecordedOptions(
    model="nova-2", smart_format=True, utterances=True, detect_language=True, diarize=True
)
answer = recordings.transcribe_file({"buffer": Path(wav_path).read_bytes()}, asked)
report("recording", answer=json.loads(answer.to_json()))
try:
    recordings.transcribe_file({"buffer": b"this is no audio" * 1000}, asked)
except DeepgramApiError as error:
    report("garbage", message=str(error))
