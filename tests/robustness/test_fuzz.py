"""Broken input is refused with a reason, from every side, and nothing of it stays."""

from tests.robustness.fuzz import fuzz


async def test_broken_input_is_refused_with_a_reason_and_leaves_nothing_behind() -> None:
    outcome = await fuzz(330, seed=1)
    assert outcome.violations == []
    assert sum(outcome.ends.values()) == 330
    # What is refused and what is served both came about: the input is broken, but not hopeless.
    assert {"http 200", "http 400", "websocket 1000", "websocket 1008", "grpc OK"} <= set(
        outcome.ends
    )
