"""How many streams a replica serves at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.common.errors import OverloadedError


class Slots:
    """A number of slots; a stream holds one from its first message to its end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @property
    def taken(self) -> int:
        """Slots in use."""
        return self._taken

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a slot for the length of the ``with`` block.

        Raises:
            OverloadedError: Every slot is taken.

        """
        if self._taken >= self._limit:
            raise OverloadedError(f"all {self._limit} slots are taken")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
