"""What a client saw of a session, and whether it was what GUARANTEE.md promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from voxmesh.gateway.v1 import gateway_pb2 as pb


@dataclass(frozen=True, slots=True)
class Told:
    """A message, and when it came."""

    at_s: float
    answer: pb.ConverseResponse


@dataclass(slots=True)
class History:
    """Everything that a client was told in one session, over all its connections."""

    told: list[Told] = field(default_factory=list)

    @property
    def words(self) -> list[pb.Word]:
        """The words as they came."""
        return [word for told in self.told for word in told.answer.captions.words]

    @property
    def text(self) -> str:
        """The words as text."""
        return "".join(word.text for word in self.words)

    @property
    def translation(self) -> str:
        """The words in the other language, as text."""
        return "".join(piece.text for piece in self._pieces)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """From which word on to the end of which one each piece translates, in nanoseconds."""
        return [
            (piece.start_offset.ToNanoseconds(), piece.end_offset.ToNanoseconds())
            for piece in self._pieces
        ]

    @property
    def _pieces(self) -> list[pb.TranslatedPiece]:
        return [piece for told in self.told for piece in told.answer.translated.pieces]

    def lacks(self, stage: str) -> bool:
        """Whether a stage was given up."""
        notices = [told.answer.notice for told in self.told if told.answer.HasField("notice")]
        return any(notice.stage == stage and not notice.retryable for notice in notices)

    @property
    def commits_s(self) -> list[float]:
        """When words came."""
        return [told.at_s for told in self.told if told.answer.captions.words]

    @property
    def diarized(self) -> list[int]:
        """Who said the words that came before a notice that nobody is told apart any more."""
        speakers: list[int] = []
        for told in self.told:
            notice = told.answer.notice
            if notice.stage == "diarizer" and not notice.retryable:
                break
            speakers += [word.speaker for word in told.answer.captions.words]
        return speakers

    def count(self, event: str) -> int:
        """How often a kind of message came."""
        return sum(told.answer.WhichOneof("event") == event for told in self.told)


def violations(
    history: History,
    undisturbed: Sequence[str] | None,
    speakers: Sequence[int] = (),
    *,
    translated: bool = False,
) -> list[str]:
    """What was not as promised, each with its clause; nothing, if all was.

    Args:
        history: Of one session.
        undisturbed: The words of the same audio when nothing happens; None: the engine does not
            answer alike when asked alike.
        speakers: Who says each of them then; empty: nobody was told apart.
        translated: Whether they were translated by a translator that shouts.

    """
    found = []
    expected = 0
    for told in history.told:
        if told.answer.WhichOneof("event") != "captions":
            continue
        captions = told.answer.captions
        if captions.words and captions.first_word != expected:
            found.append(f"W1: word {captions.first_word} came where {expected} was due")
        expected = captions.first_word + len(captions.words)
    places = [word.start_offset.ToTimedelta() for word in history.words]
    if any(after < before for before, after in pairwise(places)):
        found.append("W1: words came out of order")
    if history.count("finished") != 1 or history.told[-1].answer.WhichOneof("event") != "finished":
        found.append("W2: the end was not said, or not last, or not once")
    texts = [word.text for word in history.words]
    if undisturbed is not None and texts != list(undisturbed):
        found.append(f"F1: {_difference(texts, undisturbed)}")
    elif speakers:
        known = history.diarized
        pairs = enumerate(zip(known, speakers, strict=False))
        if changed := [at for at, (one, due) in pairs if one != due]:
            found.append(f"F8: of {len(known)} words these changed their speakers: {changed}")
    if translated and not history.lacks("translator"):
        found += _untranslated(history)
    return found


def _untranslated(history: History) -> list[str]:
    found = []
    if history.translation.split() != history.text.upper().split():
        shouted = history.text.upper().split()
        found.append(f"F9: {_difference(history.translation.split(), shouted)}")
    for word in history.words:
        begin, end = word.start_offset.ToNanoseconds(), word.end_offset.ToNanoseconds()
        covers = sum(first <= begin and end <= last for first, last in history.spans)
        if covers != 1:
            found.append(f"F9: {covers} pieces translate {word.text}")
    return found


def _difference(texts: Sequence[str], undisturbed: Sequence[str]) -> str:
    lost = [text for text in undisturbed if text not in texts]
    added = [text for text in texts if text not in undisturbed]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    return f"lost {lost}, added {added}, said twice {twice}, of {len(undisturbed)}"
