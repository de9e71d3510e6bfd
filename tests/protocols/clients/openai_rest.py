"""OpenAI's SDK for Python and recordings: ``BASE_URL KEY WAV transcribe|diarize|translate``."""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import openai

BASE_URL, KEY, WAV, TASK = sys.argv[1:]
GARBAGE = b"this is no audio" * 1000

client = openai.AsyncOpenAI(api_key=KEY, base_url=BASE_URL, max_retries=0)
transcribe = partial(client.audio.transcriptions.create, model="whisper-1")
translate = partial(client.audio.translations.create, model="whisper-1")


def report(what, answer):
    told = answer if isinstance(answer, str) else answer.model_dump(mode="json")
    print(json.dumps({"what": what, "class": type(answer).__name__, "answer": told}), flush=True)


async def ask(what, call, **fields):
    try:
        report(what, await call(**fields))
    except openai.APIStatusError as error:
        told = {"status": error.status_code, "message": error.message, "param": error.param}
        told |= {"type": error.type, "code": error.code}
        refusal = {"what": what, "class": type(error).__name__, "error": told}
        print(json.dumps(refusal), flush=True)


async def listen(what, **fields):
    async for event in await transcribe(stream=True, **fields):
        report(what, event)


async def transcriptions(recording):
    named = ("any.bin", recording.read_bytes(), "application/octet-stream")
    await asyncio.gather(
        ask("json", transcribe, file=recording),
        *(
            ask(form, transcribe, file=recording, response_format=form)
            for form in ("text", "srt", "vtt", "verbose_json")
        ),
        ask(
            "words",
            transcribe,
            file=recording,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        ),
        ask("named", transcribe, file=named, language="en", prompt="Beckett", temperature=0.2),
        ask(
            "diarized_json",
            transcribe,
            file=recording,
            response_format="diarized_json",
            chunking_strategy="auto",
        ),
        listen("stream", file=recording),
        listen("speakers", file=recording, response_format="diarized_json"),
        listen("logprobs", file=recording, include=["logprobs"]),
        ask("garbage", transcribe, file=("audio.wav", GARBAGE)),
        ask("unknown", transcribe, file=recording, model="whisper-99"),
        ask("model", client.models.retrieve, model="whisper-1"),
    )
    async for model in client.models.list():
        report("models", model)


async def speakers(recording):
    await ask("diarized_json", transcribe, file=recording, response_format="diarized_json")
    await listen("speakers", file=recording, response_format="diarized_json")
    extra = {"diarize": "true", "num_speakers": 2}
    await ask("srt", transcribe, file=recording, response_format="srt", extra_body=extra)


async def translations(recording):
    for form in ("json", "verbose_json"):
        await ask(form, translate, file=recording, response_format=form)


TASKS = {"transcribe": transcriptions, "diarize": speakers, "translate": translations}
asyncio.run(TASKS[TASK](Path(WAV)))
