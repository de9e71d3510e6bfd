"""voxmesh beside WhisperLiveKit: same recordings, weights, machine, protocol and client.

``python -m bench.versus``; see README.md. Each recording is played at the pace of speech into one
system after the other before the next recording's turn comes, so that whatever else the machine
does falls on all alike.
"""

import argparse
import asyncio
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from bench import asr_client, rival, tables
from bench.captions import heard, screens
from bench.converse import Heard
from bench.corpus import Clip
from bench.environments import cache_dir
from bench.ledger import Ledger
from bench.levels import Level, summary
from bench.mesh import Meter, Sample, Served, served
from bench.report import (
    add_manifests,
    add_options,
    corpus,
    environment,
    open_ledger,
    result_name,
    write,
)
from bench.score import compare

OURS = "voxmesh"
_SYSTEMS = {system.name: system for system in rival.SYSTEMS}
_REST_S = 20.0
_LEFT_OUT = ("sessions", "plays", "refused", "failures", "notices", "word_end_error_s")
"""Of a level's summary: what one session at a time, or this protocol, says nothing about."""


async def main(args: argparse.Namespace) -> None:
    """Play everything into everyone, and write what came out."""
    name = result_name("versus", args)
    folder = cache_dir()
    venv = args.venv or folder / f"whisperlivekit-{rival.VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    theirs = rival.install(venv)
    clips = [recording.clip() for recording in corpus(args, timed=True)][: args.recordings or None]
    [language_code] = {clip.language_code for clip in clips}  # theirs is told it at the start
    ledger = open_ledger(name, args)
    with ExitStack() as running:
        servers = {
            system: running.enter_context(
                served(args.model, environment(args))
                if system == OURS
                else rival.served(_SYSTEMS[system], args.model, language_code, venv, folder)
            )
            for system in args.systems
        }
        idle = await resting(servers)
        for clip in clips:
            for system, server in servers.items():
                if (key := f"{system}/{clip.id}") not in ledger:
                    print(key, flush=True)
                    ledger.add(key, await turn(server, clip))
    found = [row(system, clips, ledger, idle[system]) for system in args.systems]
    print(json.dumps(found, indent=2))
    write(
        name,
        args,
        {
            "recordings": [clip.id for clip in clips],
            "versions": {"python": platform.python_version(), OURS: our_versions()}
            | {"whisperlivekit": theirs},
            "systems": found,
        },
    )
    ledger.close()
    tables.update()


async def resting(servers: Mapping[str, Served]) -> dict[str, Sample]:
    """What each uses while nobody speaks to it: it takes that from whoever has its turn."""
    meters = {system: Meter(server) for system, server in servers.items()}
    await asyncio.sleep(_REST_S)
    return {system: meter.read() for system, meter in meters.items()}


async def turn(server: Served, clip: Clip) -> dict[str, Any]:
    """One recording into one system: what was seen, and what it used, as a ledger keeps it."""
    busy_s = _machine_cpu_s()
    meter = Meter(server)
    used: list[Sample] = []

    async def measure() -> None:
        while True:
            used.append(await meter.next_sample())

    async with asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(measure(), name="bench.measure")
        told = await play(server, clip)
        measuring.cancel()
    meter.sent(clip.audio_s)
    used.append(meter.read())
    others_s = _machine_cpu_s() - busy_s - sum(sample.cpu_s for sample in used)
    return {
        "heard": told.row(),
        "used": [sample.row() for sample in used],
        "others_cores": others_s / sum(sample.wall_s for sample in used),
    }


def _machine_cpu_s() -> float:
    """CPU time that the machine has spent so far, whoever for, in seconds."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "steal"))


async def play(server: Served, clip: Clip) -> Heard:
    """What a viewer saw of one recording."""
    messages: list[tuple[float, str]] = []
    session = await asr_client.play(
        server.ws_url,
        clip.pcm,
        language_code=clip.language_code,
        mode="full",
        on_message=lambda _, message: messages.append((time.monotonic(), message)),
    )
    shown = screens((at - session.started_s, message) for at, message in messages)
    told = heard(
        shown,
        language_code=clip.language_code,
        end_s=session.ended_s - session.started_s,
        finished_s=session.ended_s - session.started_s + session.end_to_ready_s,
    )
    told.late_s = session.late_s
    return told


def row(system: str, clips: Sequence[Clip], ledger: Ledger, idle: Sample) -> dict[str, Any]:
    """One system, all recordings; delays are in seconds, of words that were heard right."""
    turns = [ledger[f"{system}/{clip.id}"] for clip in clips]
    sessions = [Heard.of(one["heard"]) for one in turns]
    used = [Sample(**sample) for one in turns for sample in one["used"]]
    told = summary(Level(1, list(zip(clips, sessions, strict=True)), used, idle.memory_bytes))
    return {
        "system": system,
        "decoding": _SYSTEMS[system].decoding if system in _SYSTEMS else "its default",
        **{key: value for key, value in told.items() if key not in _LEFT_OUT},
        "others_cores_by_recording": by_recording(clips, [one["others_cores"] for one in turns]),
        "idle_cores": round(idle.cpu_s / idle.wall_s, 3),
        "wer_percent_by_recording": {
            clip.id: round(compare(clip.text, one.text, clip.language_code).tally.wer_percent, 1)
            for clip, one in zip(clips, sessions, strict=True)
        },
        "end_to_last_word_s_by_recording": by_recording(
            clips, [_complete_s(one) - one.end_s for one in sessions]
        ),
        "end_to_ready_s_by_recording": by_recording(
            clips, [one.finished_s - one.end_s for one in sessions]
        ),
    }


def _complete_s(told: Heard) -> float:
    """When the last word was final; if there is none, when the session said that it was over."""
    return told.final_at_s(len(told.words) - 1) if told.words else told.finished_s


def by_recording(clips: Sequence[Clip], values: Sequence[float]) -> dict[str, float]:
    """Numbers under the recordings' names."""
    return {clip.id: round(value, 2) for clip, value in zip(clips, values, strict=True)}


def our_versions() -> Mapping[str, str]:
    """Of what decodes in voxmesh's own environment."""
    names = ("ctranslate2", "onnxruntime")
    return {name: importlib.metadata.version(name) for name in names}


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    add_manifests(parser)
    parser.add_argument(
        "--systems", nargs="+", choices=[OURS, *_SYSTEMS], default=[OURS, *_SYSTEMS]
    )
    parser.add_argument("--recordings", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument(
        "--venv", type=Path, help="environment of WhisperLiveKit, made if it is not there"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
