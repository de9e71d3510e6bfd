"""Deepgram's Python SDK 7 with a temporary token: ``URL KEY RECORDING_URL STEREO_WAV``."""

import json
import sys
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

_, url, key, recording_url, path = sys.argv
places = {"base": url, "production": url.replace("http", "ws"), "agent": url, "agent_rest": url}
environment = DeepgramClientEnvironment(**places)


def report(what, answer):
    told = {"what": what, "class": type(answer).__name__, "answer": json.loads(answer.json())}
    print(json.dumps(told), flush=True)


granted = DeepgramClient(api_key=key, environment=environment).auth.v1.tokens.grant(ttl_seconds=600)
report("granted", granted)
client = DeepgramClient(access_token=granted.access_token, environment=environment)
media = client.listen.v1.media
report("url", media.transcribe_url(url=recording_url, model="nova-3", smart_format=True))
report(
    "channels",
    media.transcribe_file(
        request=Path(path).read_bytes(),
        model="nova-3",
        multichannel=True,
        utterances=True,
        search=["age of wisdom"],
        replace=["worst:Best"],
    ),
)
calls = {
    "elsewhere": lambda: media.transcribe_url(
        url="https://example.org/a.wav", request_options={"max_retries": 0}
    ),
    "granted again": lambda: client.auth.v1.tokens.grant(),
}
for what, call in calls.items():
    try:
        call()
    except ApiError as error:
        told = {"what": what, "status": error.status_code, "body": error.body}
        print(json.dumps(told), flush=True)
