"""Transcribes a WAV file with the realtime client of NVIDIA's SDK, and writes what it makes of it.

``riva_realtime.py HOST:PORT KEY FILE``
"""

import asyncio
import json
import logging
import sys
from argparse import Namespace
from pathlib import Path

from riva.client.asr import AudioChunkFileIterator
from riva.client.realtime import RealtimeClientASR

SERVER, KEY, FILE = sys.argv[1:]
RATE_HZ = 16_000
UNSET = -1

logging.disable()


def arguments():
    return Namespace(
        server=SERVER,
        endpoint="/v1/realtime",
        query_params="intent=transcription",
        mint_api_key=KEY,
        use_ssl=False,
        ssl_root_cert=None,
        ssl_client_cert=None,
        ssl_client_key=None,
        mic=False,
        language_code="en-US",
        model_name="",
        prompt="",
        sample_rate_hz=RATE_HZ,
        num_channels=1,
        max_alternatives=1,
        automatic_punctuation=True,
        word_time_offsets=False,
        profanity_filter=False,
        no_verbatim_transcripts=False,
        speaker_diarization=True,
        diarization_max_speakers=2,
        boosted_lm_words=["Beckett"],
        boosted_lm_score=4.0,
        start_history=UNSET,
        start_threshold=UNSET,
        stop_history=UNSET,
        stop_history_eou=UNSET,
        stop_threshold=UNSET,
        stop_threshold_eou=UNSET,
        custom_configuration="",
    )


async def main():
    client = RealtimeClientASR(arguments())
    await client.connect()
    chunks = AudioChunkFileIterator(Path(FILE), RATE_HZ // 10)
    await asyncio.gather(client.send_audio_chunks(chunks), client.receive_responses())
    updated, text = client.is_config_updated, client.final_transcript
    print(json.dumps({"updated": updated, "final_transcript": text}))
    await client.disconnect()


asyncio.run(main())
