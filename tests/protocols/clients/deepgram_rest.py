"""Deepgram's Python SDK 7 and recordings: ``URL WAV``."""

import json
import sys
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

_, url, path = sys.argv
places = {"base": url, "production": url.replace("http", "ws"), "agent": url, "agent_rest": url}
client = DeepgramClient(api_key="secret", environment=DeepgramClientEnvironment(**places))
media = client.listen.v1.media
recording = Path(path).read_bytes()
once = {"max_retries": 0}


def report(what, answer):
    told = {"what": what, "class": type(answer).__name__, "answer": json.loads(answer.json())}
    if hasattr(answer, "metadata"):
        told["created"] = type(answer.metadata.created).__name__
    print(json.dumps(told), flush=True)


def refused(what, call, **arguments):
    try:
        call(**arguments, request_options=once)
    except ApiError as error:
        told = {"what": what, "status": error.status_code, "body": error.body}
        print(json.dumps(told), flush=True)


everything = {"smart_format": True, "punctuate": True, "diarize": True, "utterances": True}
everything |= {"paragraphs": True, "detect_language": True, "keyterm": ["epoch", "belief"]}
report("bytes", media.transcribe_file(request=recording, model="nova-3", **everything))
parts = (recording[start : start + 10_000] for start in range(0, len(recording), 10_000))
report("generator", media.transcribe_file(request=parts, model="nova-3", punctuate=True))
refused("garbage", media.transcribe_file, request=b"this is no audio" * 1000, model="nova-3")
refused("url", media.transcribe_url, url="https://example.org/audio.wav", model="nova-3")
report("models", client.manage.v1.models.list())
