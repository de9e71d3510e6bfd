import asyncio

import pytest
from prometheus_client import REGISTRY

from services.common.admission import Admission, Slots
from services.common.errors import DrainingError, MeshError, OverloadedError, SaturatedError
from services.common.telemetry import Span


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


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"voxmesh_{name}", {"stage": "door", **labels}) or 0.0


@pytest.mark.parametrize(
    ("max_streams", "stops", "refuses", "reason"),
    [
        (1, False, None, "overloaded"),
        (2, False, SaturatedError("too slow"), "saturated"),
        (2, True, None, "draining"),
    ],
)
def test_a_refusal_is_counted_with_its_reason(
    max_streams: int, stops: bool, refuses: MeshError | None, reason: str
) -> None:
    stopping = asyncio.Event()
    door = Admission("door", Span.ASR_STREAM, max_streams=max_streams, stopping=stopping, drain_s=0)
    before = counted("streams_refused_total", reason=reason)
    with door.admit("s1", 0, {}):
        assert counted("streams") == 1
        if stops:
            stopping.set()
        with pytest.raises((OverloadedError, DrainingError)), door.admit("s2", 0, {}):
            assert refuses is not None, "it was let in"
            raise refuses
        assert counted("streams") == 1
    assert counted("streams") == 0
    assert counted("streams_refused_total", reason=reason) - before == 1
