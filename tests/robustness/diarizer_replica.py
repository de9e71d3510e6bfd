"""``python -m tests.robustness.diarizer_replica``: the real service around a diarizer of marks."""

from services.common.errors import DeviceError
from services.common.process import start
from services.diarizer.__main__ import replica
from services.diarizer.config import Settings
from tests.robustness.marks import marked_diarizer


async def main(chosen: Settings) -> None:
    """Serve until told to stop."""
    await replica(marked_diarizer(), 1, chosen)


if __name__ == "__main__":
    start("diarizer", Settings, main, reasons=(DeviceError,))
