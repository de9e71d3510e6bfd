"""What the online engine does with whom it knows."""

import numpy as np
import pytest

from services.common.audio import FloatArray
from services.common.timeline import samples
from services.diarizer.diarizer import Step, Wishes
from services.diarizer.engines.online import OnlineDiarizer
from services.diarizer.engines.online_memory import OnlineMemory


@pytest.mark.parametrize(("num_speakers", "joined"), [(0, True), (1, True), (2, False)])
def test_somebody_who_was_taken_for_two_is_the_older_one_from_then_on(
    online: OnlineDiarizer, reader: FloatArray, num_speakers: int, joined: bool
) -> None:
    twice = [reader[samples(4) : samples(8)], reader[samples(10) : samples(14)]]
    memory = online.start(twice)
    heard = reader[samples(15) : samples(15) + 8 * online.step_samples]
    [found] = online.advance([Step(memory, heard, len(heard), 0, Wishes(20, num_speakers))])
    after = found.memory
    assert isinstance(after, OnlineMemory)
    assert [voice.is_gone for voice in after.voices] == [False, joined]
    if joined:
        assert found.activity[:, 0].any()
        assert not found.activity[:, 1].any()
        known_s = sum(voice.seconds for voice in memory.voices)
        assert after.voices[0].seconds > known_s
    again = online.load(after.dump())
    assert isinstance(again, OnlineMemory)
    assert [voice.is_gone for voice in again.voices] == [False, joined]


def test_one_who_was_joined_leaves_room_for_somebody_else(
    online: OnlineDiarizer, reader: FloatArray, call: FloatArray
) -> None:
    twice = [reader[samples(4) : samples(8)], reader[samples(10) : samples(14)]]
    memory = online.start(twice)
    wishes = Wishes(2)
    heard = reader[samples(15) : samples(15) + 8 * online.step_samples]
    [found] = online.advance([Step(memory, heard, len(heard), 0, wishes)])
    stranger = np.concatenate([heard, call[samples(22.5) : samples(25)]])
    [later] = online.advance([Step(found.memory, stranger, len(stranger), 0, wishes)])
    assert later.activity.shape[1] == 3
    assert later.activity[:, 2].any()
