"""What a bench has measured so far, so that one that was interrupted goes on where it stood."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARTIAL = Path(__file__).parent / "results" / "partial"
"""Raw measurements; not committed."""


class Ledger:
    """Measurements by key, kept in a file of one JSON array a line: ``[key, value]``.

    The first line says what is measured: a file that says something else is not gone on with. A
    finished one is kept under another name, for whoever wants to look closer.
    """

    def __init__(self, name: str, subject: Mapping[str, Any], *, folder: Path = PARTIAL) -> None:
        """Go on with the file, or begin it.

        Args:
            name: Of the file, without its ending.
            subject: What is measured, by which code and with which settings; plain JSON.
            folder: Where it lies.

        """
        self._path = folder / f"{name}.jsonl"
        self._values: dict[str, Any] = {}
        heading = json.loads(json.dumps(["subject", dict(subject)]))
        rows = self._read()
        if rows[:1] == [heading]:
            self._values = dict(rows[1:])
        folder.mkdir(parents=True, exist_ok=True)
        # Written anew: the last line of an interrupted run may be half a line.
        kept = [heading, *([key, value] for key, value in self._values.items())]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def _read(self) -> list[Any]:
        rows: list[Any] = []
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def add(self, key: str, value: Any) -> None:
        """Keep a measurement, on disk at once."""
        self._values[key] = value
        with self._path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")

    def under(self, prefix: str) -> list[Any]:
        """The measurements whose keys begin so, oldest first."""
        return [value for key, value in self._values.items() if key.startswith(prefix)]

    def close(self) -> None:
        """All is measured: the next run begins anew."""
        self._path.replace(self._path.with_suffix(".done.jsonl"))
