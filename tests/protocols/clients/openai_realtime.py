"""Plays 24 kHz PCM to OpenAI's SDK for Python, and writes every event that comes.

``openai_realtime.py BASE_URL KEY AUDIO RUN...``, where a run is ``turns`` (the gateway ends them,
the program the silence behind them), ``speakers`` (likewise, and it is told who speaks),
``commits`` (the program does) or ``beta``.
"""

import asyncio
import base64
import json
import sys
import time
from pathlib import Path

import openai

BASE_URL, KEY, AUDIO, *RUNS = sys.argv[1:]
MAJOR = int(openai.__version__.split(".")[0])
FRAME_BYTES = 4800
SPEED = 8.0
STARTED = "input_audio_buffer.speech_started"
COMMITTED = "input_audio_buffer.committed"
COMPLETED = "conversation.item.input_audio_transcription.completed"

client = openai.AsyncOpenAI(
    api_key=KEY,
    base_url=BASE_URL,
    websocket_base_url=BASE_URL.replace("http", "ws") if MAJOR == 1 else None,
    max_retries=0,
)
names_model = {"model": "gpt-4o-transcribe"} if MAJOR == 1 else {}
TURNS = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 300}
LOGPROBS = ["item.input_audio_transcription.logprobs"]


def connected(run):
    realtime = client.beta.realtime if run == "beta" else client.realtime
    return realtime.connect(extra_query={"intent": "transcription"}, **names_model)


async def configure(connection, run):
    model = "gpt-4o-transcribe-diarize" if run == "speakers" else "gpt-4o-transcribe"
    transcription = {"model": model, "language": "en"}
    if run == "beta":
        await connection.transcription_session.update(
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": transcription,
                "input_audio_noise_reduction": {"type": "near_field"},
                "turn_detection": TURNS,
                "include": LOGPROBS,
            }
        )
        return
    await connection.session.update(
        session={
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {**transcription, "prompt": "Samuel Beckett"},
                    "turn_detection": None if run == "commits" else TURNS,
                }
            },
            "include": LOGPROBS,
        }
    )


async def play(connection, audio):
    started = time.monotonic()
    for start in range(0, len(audio), FRAME_BYTES):
        frame = audio[start : start + FRAME_BYTES]
        await asyncio.sleep(started + start / 48_000 / SPEED - time.monotonic())
        await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())


async def listen(connection, run):
    """Write what comes, until all items are complete, and so those that the program commits.

    In those nobody starts to speak, as far as the gateway tells.
    """
    own = 2 if run == "commits" else 1
    started, committed, completed = set(), set(), set()
    while len(committed - started) < own or committed != completed:
        event = await connection.recv()
        told = event.model_dump(mode="json")
        print(json.dumps({"run": run, "what": type(event).__name__, **told}), flush=True)
        for kind, items in ((STARTED, started), (COMMITTED, committed), (COMPLETED, completed)):
            if event.type == kind:
                items.add(event.item_id)


async def hold(run, audio):
    async with connected(run) as connection, asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(connection, run))
        await configure(connection, run)
        await play(connection, audio)
        if run == "commits":
            await connection.input_audio_buffer.commit()
            await play(connection, audio[:96_000])
            await connection.input_audio_buffer.clear()
            await connection.input_audio_buffer.commit()
            await play(connection, audio[:192_000])
        await connection.input_audio_buffer.commit()


async def main(audio):
    await asyncio.gather(*(hold(run, audio) for run in RUNS))


asyncio.run(main(Path(AUDIO).read_bytes()))
