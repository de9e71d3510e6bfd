"""``python -m tests.robustness.translator_replica``: the real service around one that shouts."""

from collections.abc import Sequence

from services.common.errors import DeviceError
from services.common.process import start
from services.translator.__main__ import replica
from services.translator.config import Settings
from services.translator.languages import resolve
from services.translator.translator import Job, Pair, Translation


class Shouter:
    """Says every word louder, the same whatever follows it: what is lost or said twice shows."""

    name = "shouter"
    forces_prefix = False
    example = Pair(resolve("en"), resolve("pt"))

    def check(self, pair: Pair) -> None:
        """It knows all languages."""

    def bucket(self, job: Job) -> int:
        """All texts may share a call."""
        return 0

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """Translate each text."""
        return [Translation(job.text.upper()) for job in jobs]


async def main(chosen: Settings) -> None:
    """Serve until told to stop."""
    await replica(Shouter(), 1, chosen)


if __name__ == "__main__":
    start("translator", Settings, main, reasons=(DeviceError,))
