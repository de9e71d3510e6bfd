import asyncio

import pytest

from services.gateway.throttle import Throttle


async def test_a_second_s_worth_passes_at_once_and_the_rest_at_its_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    waited_s: list[float] = []

    async def sleep(delay_s: float) -> None:
        nonlocal now_s
        waited_s.append(round(delay_s, 6))
        now_s += delay_s

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    throttle = Throttle(4)
    for _ in range(6):
        await throttle.admit()
    assert waited_s == [0.25, 0.25]
    now_s += 60
    await throttle.admit()
    assert len(waited_s) == 2, "who paused owes nothing"
