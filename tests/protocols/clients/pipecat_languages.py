"""Writes the codes of the languages that Pipecat knows."""

import json

from pipecat.transcriptions.language import Language

for language in Language:
    print(json.dumps({"code": language.value}))
