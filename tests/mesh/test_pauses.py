"""Nothing is lost or said twice where real utterances follow each other after a pause."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from bench.corpus import Clip, join, recordings
from bench.pauses import around
from bench.score import normalize
from tests.conftest import ServedMesh
from tests.mesh.asr import watch

SPEAKER = "1688-142285"
SAID = ("0003", "0004", "0006", "0007", "0008", "0009")
PAUSES_S = (0.3, 20.0, 1.0, 5.0, 2.0)
QUIET_ROOM_RMS = 0.001
"""-60 dBFS."""


@pytest.fixture(scope="module")
def utterances(shared_data: Path) -> list[Clip]:
    found = {r.id: r for r in recordings(shared_data / "librispeech" / "utterances.jsonl")}
    return [found[f"ls-other-{SPEAKER}-{number}"].clip() for number in SAID]


async def test_pauses_of_any_length_cost_no_word_and_add_none(
    mesh_tiny: ServedMesh, utterances: list[Clip]
) -> None:
    unbroken = join("unbroken", utterances, [0.0] * len(SAID))
    paused = join("paused", utterances, [*PAUSES_S, 1.0], noise_rms=QUIET_ROOM_RMS)
    plain, heard = await asyncio.gather(
        *(watch(mesh_tiny.ws_url, clip.pcm) for clip in (unbroken, paused))
    )
    said = [normalize(utterance.text, "en") for utterance in utterances]
    before = around(said, normalize(plain.text, "en"))
    after = around(said, normalize(heard.text, "en"))
    changed = [now - then for now, then in zip(after, before, strict=True)]
    assert [pause.lost for pause in changed] == [Counter()] * len(PAUSES_S), heard.text
    assert [pause.added for pause in changed] == [Counter()] * len(PAUSES_S), heard.text
