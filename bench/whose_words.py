"""Who said which word: the gateway's answer, made of turns and of words that are right.

No recogniser takes part, so all errors are those of turns and of bringing them together with words.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bench.mixtures import SaidWord, SpokenBy
from bench.score import align
from services.common.timeline import samples
from services.common.words import Word
from services.gateway.speakers import Speakers, Turn
from services.gateway.transcript import Scores, Transcript
from voxmesh.diarizer.v1 import diarizer_pb2 as pb


def attributed(words: Sequence[SaidWord], messages: Sequence[pb.Turns]) -> list[str]:
    """Who said each word, as the gateway decides it.

    Args:
        words: In order of their start; each is committed before the first message that says
            something of its end.
        messages: What the diarizer said, in its order.

    """
    transcript = Transcript()
    speakers = Speakers(transcript)
    committed = 0
    for turns in messages:
        ready = committed
        while ready < len(words) and samples(words[ready].end_s) <= turns.through_sample:
            ready += 1
        if ready > committed:
            speakers.commit([_word(word) for word in words[committed:ready]], Scores())
            committed = ready
        speakers.hear(
            [Turn(turn.speaker, turn.first_sample, turn.end_sample) for turn in turns.turns],
            turns.first_sample,
            turns.settled_sample,
            turns.through_sample,
        )
    if committed < len(words):
        speakers.commit([_word(word) for word in words[committed:]], Scores())
    speakers.release()
    return [str(word.speaker) for word in transcript.words]


def _word(word: SaidWord) -> Word:
    return Word(f" {word.text}", samples(word.start_s), samples(word.end_s))


def settled(turns: Sequence[SpokenBy]) -> list[pb.Turns]:
    """The message of a diarizer that hears everything before it says anything."""
    numbers = {
        name: number for number, name in enumerate(dict.fromkeys(t.speaker for t in turns), 1)
    }
    end = max((samples(turn.end_s) for turn in turns), default=0)
    said = [
        pb.Turn(
            speaker=numbers[turn.speaker],
            first_sample=samples(turn.start_s),
            end_sample=samples(turn.end_s),
        )
        for turn in sorted(turns, key=lambda turn: turn.start_s)
    ]
    return [pb.Turns(turns=said, through_sample=end, settled_sample=end)]


def wrong_words(words: Sequence[SaidWord], whose: Sequence[str]) -> int:
    """How many words have the wrong speaker, by the mapping of speakers that is best for them."""
    pairs = Counter(zip((word.speaker for word in words), whose, strict=True))
    people, told = list({one for one, _ in pairs}), list({other for _, other in pairs})
    shared = np.array([[pairs[one, other] for other in told] for one in people])
    shared = shared.reshape(len(people), len(told))
    return len(words) - int(shared[linear_sum_assignment(shared, maximize=True)].sum())


def permuted_errors(words: Sequence[SaidWord], whose: Sequence[str]) -> int:
    """Word errors of all that each speaker says in one, by the permutation that has the fewest.

    Somebody who was not told apart says nothing, and of somebody who does not exist every word is
    too many.
    """
    people = list(dict.fromkeys(word.speaker for word in words))
    told = list(dict.fromkeys(whose))
    said = [[word.text for word in words if word.speaker == one] for one in people]
    heard = [
        [word.text for word, by in zip(words, whose, strict=True) if by == one] for one in told
    ]
    size = max(len(said), len(heard))
    said += [[]] * (size - len(said))
    heard += [[]] * (size - len(heard))
    errors = np.array([[_errors(reference, text) for text in heard] for reference in said])
    errors = errors.reshape(size, size)
    return int(errors[linear_sum_assignment(errors)].sum())


def _errors(reference: Sequence[str], text: Sequence[str]) -> int:
    return sum(
        max(len(step.reference), len(step.text))
        for step in align(reference, text)
        if step.kind != "equal"
    )
