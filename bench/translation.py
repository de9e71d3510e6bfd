"""How good, prompt and calm is a translation? ``python -m bench.translation``; see README.md.

Sentences are said to a stream of the translator word by word, at the pace of speech, and each word
waits until the one before it is worked on: so what is late is late by words, and what the model
takes for them is added.
"""

import argparse
import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sacrebleu
from matplotlib.figure import Figure

from bench import tables
from bench.report import quantiles, write
from services.common.batching import Batcher
from services.common.timeline import SAMPLE_RATE_HZ
from services.common.words import Word
from services.translator.config import Settings
from services.translator.engines.choice import load_engine
from services.translator.languages import resolve
from services.translator.policies.choice import policy_of
from services.translator.policies.policy import Policy
from services.translator.policies.units import common
from services.translator.stream import Commit, Event, Stream
from services.translator.translator import Job, Pair, Translation, Translator

_WORD_S = 0.4
"""Two and a half words in a second."""
_WORD_SAMPLES = round(_WORD_S * SAMPLE_RATE_HZ)
_FLORES = "flores200.devtest.first300"
_FILES = {"en": "eng", "pt": "por", "de": "deu", "fr": "fra", "es": "spa"}


@dataclass(slots=True)
class Shown:
    """What somebody sees who reads a translation."""

    words: list[str] = field(default_factory=list)
    """Committed."""
    erased: int = 0
    """Words that were shown and then were others, or none."""
    _tail: list[str] = field(default_factory=list)

    def see(self, pieces: Sequence[str], tail: str | None) -> None:
        """Read what is new: pieces for good, and the tail; None: it is as it was behind them."""
        before = self.words + self._tail
        for piece in pieces:
            new = piece.split()
            self.words += new
            # It takes the place of the tail's beginning, until another tail is told.
            self._tail = self._tail[len(new) :]
        if tail is not None:
            self._tail = tail.split()
        self.erased += len(before) - common(before, self.words + self._tail)


@dataclass(slots=True)
class Reading:
    """What somebody sees who reads the translation of a sentence, and when."""

    shown: Shown = field(default_factory=Shown)
    committed_s: list[float] = field(default_factory=list)
    """When each of its words was committed, from the start of the sentence."""
    lags_s: list[float] = field(default_factory=list)
    """From the end of each word of the source to the commit that covers it."""

    def take(self, events: Sequence[Event], now_s: float) -> None:
        """Read what a stream says at a time."""
        commits = [event for event in events if isinstance(event, Commit)]
        tails = [event.text for event in events if not isinstance(event, Commit)]
        self.shown.see([commit.text for commit in commits], tails[-1] if tails else None)
        for commit in commits:
            self.committed_s += [now_s] * len(commit.text.split())
            ends = range(commit.first_sample + _WORD_SAMPLES, commit.end_sample + 1, _WORD_SAMPLES)
            self.lags_s += [now_s - place / SAMPLE_RATE_HZ for place in ends]


def laal_s(committed_s: Sequence[float], source_s: float, num_reference: int) -> float:
    """Length-adaptive average lagging in seconds (Papi et al., 2022).

    Args:
        committed_s: When each word of the translation was committed.
        source_s: How long the source lasts.
        num_reference: Words of the reference.

    """
    rate_s = source_s / max(len(committed_s), num_reference)
    lags = []
    for number, at_s in enumerate(committed_s):
        lags.append(at_s - number * rate_s)
        if at_s >= source_s:
            break
    return sum(lags) / len(lags) if lags else 0.0


async def read(
    text: str,
    pair: Pair,
    translator: Translator,
    batcher: Batcher[Job, Translation],
    policy: Policy,
) -> Reading:
    """Say a sentence to a stream, and read what comes."""
    reading = Reading()
    with batcher.seat(live=True, moved=True) as seat:
        stream = Stream(translator, batcher, seat, pair, policy, state=None)
        words = text.split()
        for number, word in enumerate(words):
            first = number * _WORD_SAMPLES
            said = Word(f" {word}", first, first + _WORD_SAMPLES)
            began_s = time.perf_counter()
            events = await stream.hear([said], ())
            took_s = time.perf_counter() - began_s
            reading.take(events, (number + 1) * _WORD_S + took_s)
        reading.take(await stream.flush(), len(words) * _WORD_S)
    return reading


async def speak(
    texts: Sequence[str],
    pair: Pair,
    translator: Translator,
    batcher: Batcher[Job, Translation],
    policy: Policy,
    until_s: float,
) -> list[float]:
    """Say sentences one after the other in real time, until some time; how late each word was."""
    lags_s: list[float] = []
    with batcher.seat(live=True, moved=True) as seat:
        stream = Stream(translator, batcher, seat, pair, policy, state=None)
        began_s = time.monotonic()
        words = [word for text in texts for word in text.split()]
        said = 0
        while said < len(words) and time.monotonic() < until_s:
            await asyncio.sleep(max(0.0, began_s + (said + 1) * _WORD_S - time.monotonic()))
            # What has come while the model worked is one message, as in the service's inbox.
            due = max(said + 1, int((time.monotonic() - began_s) / _WORD_S))
            new = [
                Word(f" {words[number]}", number * _WORD_SAMPLES, (number + 1) * _WORD_SAMPLES)
                for number in range(said, min(due, len(words)))
            ]
            said += len(new)
            reading = Reading()
            events = await stream.hear(new, ())
            reading.take(events, time.monotonic() - began_s)
            lags_s += reading.lags_s
    return lags_s


async def crowd(
    args: argparse.Namespace,
    direction: str,
    translator: Translator,
    batcher: Batcher[Job, Translation],
    policy: Policy,
) -> dict[str, Any]:
    """Many speak at once, in real time."""
    source, target = direction.split(">")
    pair = Pair(resolve(source), resolve(target))
    texts = _lines(args.parallel, source, args.lines)
    before_s, began_s = _cpu_s(), time.monotonic()
    tasks = []
    for number in range(args.at_once):
        await asyncio.sleep(_WORD_S / args.at_once)
        own = texts[number % len(texts) :] + texts[: number % len(texts)]
        until_s = began_s + args.seconds
        work = speak(own, pair, translator, batcher, policy, until_s)
        tasks.append(asyncio.create_task(work, name=f"speaker.{number}"))
    lags_s = [lag for late in await asyncio.gather(*tasks) for lag in late]
    wall_s = time.monotonic() - began_s
    return {
        "pair": direction,
        "at_once": args.at_once,
        "seconds": round(wall_s, 1),
        "committed_after_s": quantiles(lags_s),
        "cores": round((_cpu_s() - before_s) / wall_s, 2),
    }


async def main(args: argparse.Namespace) -> None:
    """Measure, and write what came out."""
    rows, crowds = [], []
    for policy in args.policies:
        chosen = Settings(
            **dict(
                setting.removeprefix("TRANSLATOR_").lower().split("=", 1) for setting in args.env
            ),
            model=args.model,
            policy=policy,
        )
        translator, workers = load_engine(chosen)
        batcher = Batcher(
            "translator",
            translator.translate,
            translator.bucket,
            step_s=_WORD_S,
            workers=args.workers or workers,
            max_batch=chosen.max_batch,
        )
        work = asyncio.create_task(batcher.run(), name="batcher")
        for pair in args.pairs:
            rows.append(await _measure(args, pair, policy, translator, batcher, policy_of(chosen)))
            print(rows[-1])
            if args.at_once:
                crowded = await crowd(args, pair, translator, batcher, policy_of(chosen))
                crowds.append({"policy": policy, **crowded})
                print(crowds[-1])
        work.cancel()
    name = f"translation-{args.name or Path(args.model).name}"
    path = write(name, args, {"rows": rows, "crowds": crowds})
    draw(rows, path.with_suffix(".png"))
    tables.update()


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what promptness costs in quality."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="a word's translation is certain after, s (line: p50 to p95)",
        ylabel="BLEU, % of whole sentences",
        title="Simultaneous translation, FLORES-200 at 2.5 words a second",
    )
    markers = dict(zip(sorted({row["pair"] for row in rows}), "os^vD*", strict=False))
    colours = {
        policy: f"C{number}"
        for number, policy in enumerate(dict.fromkeys(r["policy"] for r in rows))
    }
    for row in rows:
        quality = 100 * row["bleu"] / row["whole_bleu"]
        late = row["committed_after_s"]
        colour = colours[row["policy"]]
        axes.plot([late["p50"], late["p95"]], [quality] * 2, color=colour, linewidth=1)
        axes.plot(
            late["p50"],
            quality,
            markers[row["pair"]],
            color=colour,
            label=f"{row['policy']}, {row['pair']}",
        )
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)


async def _measure(
    args: argparse.Namespace,
    direction: str,
    name: str,
    translator: Translator,
    batcher: Batcher[Job, Translation],
    policy: Policy,
) -> dict[str, Any]:
    source, target = direction.split(">")
    pair = Pair(resolve(source), resolve(target))
    texts, references = (_lines(args.parallel, tag, args.lines) for tag in (source, target))
    whole = [translator.translate([Job(pair, text)])[0].text for text in texts]
    before_s = _cpu_s()
    readings = [await read(text, pair, translator, batcher, policy) for text in texts]
    cpu_s = _cpu_s() - before_s
    said = [" ".join(reading.shown.words) for reading in readings]
    speech_s = sum(len(text.split()) for text in texts) * _WORD_S
    return {
        "policy": name,
        "pair": direction,
        "sentences": len(texts),
        "bleu": bleu(said, references),
        "whole_bleu": bleu(whole, references),
        "chrf": chrf(said, references),
        "whole_chrf": chrf(whole, references),
        "erased_per_word": round(
            sum(reading.shown.erased for reading in readings)
            / sum(len(reading.shown.words) for reading in readings),
            3,
        ),
        "committed_after_s": quantiles([lag for one in readings for lag in one.lags_s]),
        "laal_s": round(
            sum(
                laal_s(one.committed_s, len(text.split()) * _WORD_S, len(reference.split()))
                for one, text, reference in zip(readings, texts, references, strict=True)
            )
            / len(texts),
            2,
        ),
        "cpu_s_per_s": round(cpu_s / speech_s, 4),
    }


def _lines(folder: Path, tag: str, most: int) -> list[str]:
    return (folder / f"{_FLORES}.{_FILES[tag]}").read_text().splitlines()[:most]


def bleu(said: list[str], references: list[str]) -> float:
    """BLEU of translations against one reference each, as sacrebleu computes it."""
    return round(sacrebleu.corpus_bleu(said, [references]).score, 2)


def chrf(said: list[str], references: list[str]) -> float:
    """The same of chrF."""
    return round(sacrebleu.corpus_chrf(said, [references]).score, 2)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=Path, required=True, help="folder with FLORES-200")
    parser.add_argument("--model", default="firefox-en-pt")
    parser.add_argument("--pairs", nargs="+", default=["en>pt", "pt>en"])
    parser.add_argument("--policies", nargs="+", default=["local-agreement", "wait-k", "sentence"])
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=20, help="speakers at once; 0: no such run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they speak")
    parser.add_argument("--workers", type=int, default=1, help="cores; 0: as the service would")
    parser.add_argument("--engine", default="", help=argparse.SUPPRESS)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", default="", help="of the result; default: the model's")
    asyncio.run(main(parser.parse_args()))
