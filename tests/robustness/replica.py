"""``python -m tests.robustness.replica``: the real ASR service around a recogniser of marks."""

import os
from pathlib import Path

from services.asr.__main__ import replica
from services.asr.config import Settings
from services.common.errors import DeviceError
from services.common.process import start
from tests.robustness.marks import MarkedRecognizer, load

SCRIPT = "ROBUSTNESS_SCRIPT"
"""The variable that names the file with the script."""


async def main(chosen: Settings) -> None:
    """Serve until told to stop."""
    await replica(MarkedRecognizer(load(Path(os.environ[SCRIPT]))), chosen)


if __name__ == "__main__":
    start("asr", Settings, main, reasons=(DeviceError,))
