"""Through English, where an engine lacks a pair and has both halves, if that is asked for.

It costs two translations, and errors of the first are in the second.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

from services.common.errors import InvalidRequestError
from services.translator.languages import resolve
from services.translator.translator import Job, Look, Pair, Translation, Translator

_ENGLISH = resolve("en")


class Pivot:
    """An engine, and English in the middle. Implements ``Translator``.

    Of a job that goes through English the second half gets the prefix: what the engine promises
    of prefixes holds for these pairs, too.
    """

    def __init__(self, translator: Translator, *, asked: bool) -> None:
        """Wrap an engine; not asked, it only says of a pair that it refuses what would help."""
        self.name = translator.name
        self.forces_prefix = translator.forces_prefix
        self.example = translator.example
        self._translator = translator
        self._asked = asked

    def check(self, pair: Pair) -> None:
        """See ``Translator``."""
        try:
            self._translator.check(pair)
        except InvalidRequestError as refusal:
            if not all(map(self._has, _halves(pair))):
                raise
            if not self._asked:
                raise InvalidRequestError(
                    f"{refusal}; TRANSLATOR_PIVOT would translate it through English"
                ) from refusal

    def bucket(self, job: Job) -> Hashable:
        """See ``Translator``: what is translated once waits for nothing that is twice."""
        if self._has(job.pair):
            return self._translator.bucket(job), False
        return self._translator.bucket(_first(job)), True

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """See ``Translator``."""
        if self._has(jobs[0].pair):
            return self._translator.translate(jobs)
        halfway = self._translator.translate([_first(job) for job in jobs])
        seconds = [
            Job(_halves(job.pair)[1], made.text, job.prefix)
            for job, made in zip(jobs, halfway, strict=True)
        ]
        return [
            replace(made, looks=_joined(one.looks, made.looks))
            for one, made in zip(halfway, self._shared(seconds), strict=True)
        ]

    def _has(self, pair: Pair) -> bool:
        try:
            self._translator.check(pair)
        except InvalidRequestError:
            return False
        return True

    def _shared(self, jobs: Sequence[Job]) -> list[Translation]:
        """Translate jobs of any buckets, those of one together."""
        places: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place, job in enumerate(jobs):
            places[self._translator.bucket(job)].append(place)
        found: dict[int, Translation] = {}
        for alike in places.values():
            made = self._translator.translate([jobs[place] for place in alike])
            found.update(zip(alike, made, strict=True))
        return [found[place] for place in range(len(jobs))]


def _halves(pair: Pair) -> tuple[Pair, Pair]:
    return Pair(pair.source, _ENGLISH), Pair(_ENGLISH, pair.target)


def _first(job: Job) -> Job:
    return Job(_halves(job.pair)[0], job.text)


def _joined(first: Sequence[Look], second: Sequence[Look]) -> tuple[Look, ...]:
    """What a piece comes from that comes from a piece; nothing where either half tells nothing."""
    if not first:
        return ()
    return tuple(
        Look(look.end, next((one for one in first if one.end > look.source), first[-1]).source)
        for look in second
    )
