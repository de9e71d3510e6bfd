import pytest

from services.common.admission import Slots
from services.common.errors import OverloadedError


def test_one_too_many_is_refused_until_a_slot_is_free() -> None:
    slots = Slots(2)
    with slots.hold():
        with slots.hold():
            assert slots.taken == 2
            with pytest.raises(OverloadedError, match="all 2 slots are taken"), slots.hold():
                pass
            assert slots.taken == 2, "a refusal takes nothing"
        with slots.hold():
            assert slots.taken == 2
    assert slots.taken == 0


def test_a_stream_that_fails_gives_its_slot_back() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots.hold():
        raise ZeroDivisionError
    assert slots.taken == 0
