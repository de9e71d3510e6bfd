"""How fast a client may speak."""

import asyncio


class Throttle:
    """Lets so many messages pass in a second and delays the rest: none is dropped.

    A second's worth may come at once. Reference: the generic cell rate algorithm, ITU-T I.371.
    """

    def __init__(self, per_s: int) -> None:
        self._interval_s = 1 / per_s
        self._due_s = 0.0
        """When a client that never paused would send its next message."""

    async def admit(self) -> None:
        """Wait until the next message may pass."""
        now_s = asyncio.get_running_loop().time()
        self._due_s = max(self._due_s, now_s) + self._interval_s
        if (early_s := self._due_s - 1.0 - now_s) > 0:
            await asyncio.sleep(early_s)
