"""What files hold, read again whenever one of them changes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0
"""How soon a change counts, such as a key that was taken out of its file."""

Content = TypeVar("Content")


class FileError(Exception):
    """A file cannot be used; the message says which, and why."""


class Watched(Generic[Content]):
    """What some files hold together. Files that cannot be read again change nothing."""

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], Content]) -> None:
        """Read the files.

        Args:
            paths: The files.
            read: What they hold now; raises ``FileError``.

        Raises:
            FileError: They cannot be used.

        """
        self._paths = paths
        self._read = read
        # Looked at before they are read: a change in between is then seen as one.
        self._stamps = self._look()
        self.content = read()
        """What they held when they could last be read."""

    async def watch(self) -> None:
        """Keep ``content`` true, until cancelled."""
        files = [str(path) for path in self._paths]
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if (stamps := self._look()) == self._stamps:
                continue
            self._stamps = stamps
            try:
                self.content = self._read()
            except FileError as error:
                log.error("files not read again", files=files, reason=str(error))
            else:
                log.info("files read again", files=files)

    def _look(self) -> list[object]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> object:
    """What changes when a file does: a secret that is mounted changes by being replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
