"""``nvidia-riva-client`` as its scripts use it: ``riva_asr.py TARGET WAV``."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import riva.client
from google.protobuf.json_format import MessageToDict

target, wav = sys.argv[1:]
metadata = [["authorization", "Bearer secret"], ["function-id", "any"]]
asr = riva.client.ASRService(riva.client.Auth(uri=target, metadata_args=metadata))


def told(what: str, **observed: Any) -> None:
    print(json.dumps({"what": what, **observed}), flush=True)


def results(response: Any) -> list[dict[str, Any]]:
    """The results of a response, with every field that has a default."""
    shown = MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return list(shown["results"])


def sleep_a_quarter(_chunk: bytes, length_s: float) -> None:
    """As ``riva.client.sleep_audio_length``, at four times the pace of speech."""
    time.sleep(length_s / 4)


# transcribe_file.py --list-models
response = asr.stub.GetRivaSpeechRecognitionConfig(
    riva.client.proto.riva_asr_pb2.RivaSpeechRecognitionConfigRequest(),
    metadata=asr.auth.get_auth_metadata(),
)
for model in response.model_config:
    told("model", name=model.model_name, parameters=dict(model.parameters))

# transcribe_file_offline.py
config = riva.client.RecognitionConfig(
    language_code="en-US", max_alternatives=1, enable_word_time_offsets=True
)
told("offline", results=results(asr.offline_recognize(Path(wav).read_bytes(), config)))

# transcribe_mic.py, from a file
config = riva.client.StreamingRecognitionConfig(
    config=riva.client.RecognitionConfig(
        encoding=riva.client.AudioEncoding.LINEAR_PCM,
        language_code="en-US",
        max_alternatives=1,
        enable_automatic_punctuation=True,
        enable_word_time_offsets=True,
    ),
    interim_results=True,
)
riva.client.add_audio_file_specs_to_config(config, wav)
riva.client.add_word_boosting_to_config(config, ["Beckett", "Worstward Ho"], 20.0)
riva.client.add_speaker_diarization_to_config(config.config, True, 2)
riva.client.add_endpoint_parameters_to_config(config, 100, 0.5, 500, 300, 0.5, 0.9)
riva.client.add_custom_configuration_to_config(config, "enable_vad_endpointing:true")
with riva.client.AudioChunkFileIterator(wav, 1600, sleep_a_quarter) as chunks:
    next(iter(chunks))  # the header, with a tenth of a second of silence
    for streamed in asr.streaming_response_generator(chunks, config):
        told("streamed", results=results(streamed))
told("streamed OK")

# transcribe_file.py
config = riva.client.StreamingRecognitionConfig(
    config=riva.client.RecognitionConfig(language_code="en-US"), interim_results=False
)
with riva.client.AudioChunkFileIterator(wav, 4800) as chunks:
    for streamed in asr.streaming_response_generator(chunks, config):
        told("file", results=results(streamed))
told("file OK")
