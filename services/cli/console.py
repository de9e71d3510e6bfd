"""What the command shows: one console, errors that end it, progress bars."""

from types import TracebackType
from typing import NoReturn, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
"""Results: what another program may read."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Everything said to a person: progress, advice, errors."""


def fail(message: str, *, code: int = 1) -> NoReturn:
    """End the command with a sentence on what went wrong and what to do."""
    err.print(Text("error: ", style="bold red") + Text(message, style="default"))
    raise typer.Exit(code)


class PullProgress:
    """Progress bars of a pull; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        err.print(message, markup=False)

    def progress(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """Move the bar of one download."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done_bytes, total=total_bytes or None)
