"""Online diarization: people told apart in a sliding window, matched with the voices known.

At each step the last seven seconds are looked at as a whole. The segmentation says who speaks in
them, overlaps included, but not who is who outside of the window; embeddings of what each of them
says alone do. They also tell where it took two people for one, as it does when one of them has said
little yet. What is newer than the look-ahead is decided again at the next step.

Sources: Coria et al., "Overlap-aware low-latency online speaker diarization based on end-to-end
local segmentation", 2021; the two models: ``segmenter.py``, ``embedder.py``.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from services.common.audio import FloatArray
from services.common.errors import InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ
from services.diarizer.diarizer import Finding, Memory, Step, Wishes
from services.diarizer.engines import embedder as voicing
from services.diarizer.engines import segmenter as segmenting
from services.diarizer.engines.embedder import Embedder, num_frames
from services.diarizer.engines.features import piece_of
from services.diarizer.engines.online_memory import OnlineMemory, parse
from services.diarizer.engines.segmenter import Segmenter
from services.diarizer.engines.voices import Rules, Somebody, Voice, identify, joined

STEP_SAMPLES = math.lcm(segmenting.FRAME_SAMPLES, voicing.FRAME_SAMPLES)
"""0.54 s: frames of both models lie on the same grid in every window."""

_WINDOW_SAMPLES = 13 * STEP_SAMPLES
_PIECE_FEATURES = 100
"""Sound that goes through the trunk at once, 1 s; of a piece the newest frames are kept."""
_PIECES_AT_ONCE = 8
_VOICE_FRAME_S = voicing.FRAME_SAMPLES / SAMPLE_RATE_HZ
_MIN_VOICE_FRAMES = 10
"""Less speech alone tells nothing of a voice: 0.2 s."""
_FULL_PAST_FRAMES = 36
"""Speech of the past that is worth all that the past is worth: 0.6 s."""
_SIDE_FRAMES = 36
"""Speech that there must be on both sides of a change of voices, 0.72 s; more tells it better."""
_WIDEST_SIDE_FRAMES = 75
"""Speech before and after a change that tells it, 1.5 s at most."""
_CHANGE_FRAMES = 12
"""Changes are looked for so far apart: every 0.24 s."""
_ENROLLED_S = 1.0
"""What somebody enrolled must have said alone."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What decides, besides the models."""

    rules: Rules = field(default_factory=Rules)
    active: float = 0.4
    """Probability from which somebody counts as speaking."""
    newest: int = 100
    """Of what somebody says alone, so many voice frames tell whose voice it is."""
    change: float = 0.25
    """Likeness of what somebody says to what they said before below which they are two people."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """A step's window as the models see it."""

    first_frame: int
    """Number of the window's first frame, on the clock of what was heard."""
    activity: FloatArray
    """(frames, people) how probably somebody speaks; 0: not probably enough."""
    centers: NDArray[np.int64]
    """(voice frames,) the frame that each of them lies in, counted from the window's first."""
    sound: FloatArray
    """(voice frames, width)"""

    def alone(self, person: int) -> NDArray[np.bool_]:
        """(voice frames,) where nobody but this one speaks."""
        active = self.activity > 0
        lonely = active[:, person] & (active.sum(axis=1) == 1)
        inside = self.centers >= 0
        found: NDArray[np.bool_] = inside & lonely[self.centers * inside]
        return found


class OnlineDiarizer:
    """Diarizer with a segmentation model and an embedding model on ONNX Runtime."""

    name = "online"
    step_samples = STEP_SAMPLES
    context_samples = _WINDOW_SAMPLES + 2 * STEP_SAMPLES

    def __init__(self, segmenter: Segmenter, embedder: Embedder, tuning: Tuning) -> None:
        self._segmenter = segmenter
        self._embedder = embedder
        self._tuning = tuning
        self._unheard = Voice(np.zeros(embedder.size, np.float32), 0.0)
        self._gone = Voice(np.zeros(embedder.size, np.float32), -1.0)

    def start(self, enrolled: Sequence[FloatArray]) -> OnlineMemory:
        """See ``Diarizer``."""
        voices = tuple(self._enrol(number, clip) for number, clip in enumerate(enrolled, 1))
        return OnlineMemory(voices, 0, 0, np.zeros((0, len(voices)), bool))

    def paused(self, memory: Memory, at_sample: int) -> OnlineMemory:
        """See ``Diarizer``."""
        assert isinstance(memory, OnlineMemory)
        nobody = np.zeros((0, len(memory.voices)), bool)
        return OnlineMemory(memory.voices, at_sample, at_sample // segmenting.FRAME_SAMPLES, nobody)

    def load(self, data: bytes) -> OnlineMemory:
        """See ``Diarizer``."""
        return parse(data, self._embedder.size)

    def bucket(self, step: Step) -> Hashable:
        """See ``Diarizer``."""
        return step.end_sample - _window_start(step)

    def advance(self, steps: Sequence[Step]) -> list[Finding]:
        """See ``Diarizer``."""
        length = steps[0].end_sample - _window_start(steps[0])
        if length < segmenting.MIN_SAMPLES:
            nobody = np.zeros((0, segmenting.NUM_PEOPLE), np.float32)
            return [self._find(step, nobody, {}) for step in steps]
        windows = np.stack([step.audio[-length:] for step in steps])
        activity = self._segmenter.activity(windows)
        sounds = self._sounds(steps)
        return [
            self._find(step, np.where(heard >= self._tuning.active, heard, 0), sound)
            for step, heard, sound in zip(steps, activity, sounds, strict=True)
        ]

    def _find(self, step: Step, activity: FloatArray, sound: Mapping[int, FloatArray]) -> Finding:
        memory = _memory(step)
        scene = self._told_apart(_scene(step, activity, sound))
        first = memory.settled_frame - scene.first_frame
        last = _settled_frame(step, scene) - scene.first_frame
        order, people = self._people(scene, memory)
        known, wishes = sum(not voice.is_gone for voice in memory.voices), step.wishes
        expected = wishes.num_speakers or wishes.max_speakers
        found = identify(
            people,
            memory.voices,
            self._tuning.rules,
            room=max(0, expected - known),
            missed=known < wishes.num_speakers,
        )
        num_voices = max([len(memory.voices), *(voice + 1 for voice in found if voice is not None)])
        speaking = np.zeros((len(activity) - first, num_voices), np.float32)
        voices = dict(enumerate(memory.voices))
        for person, somebody, voice in zip(order, people, found, strict=True):
            if voice is None:
                continue
            said = scene.activity[first:, person]
            speaking[:, voice] = np.maximum(speaking[:, voice], said)
            if speaking[: last - first, voice].any():
                newly = (scene.centers >= first) & (scene.centers < last) & scene.alone(person)
                before = voices.get(voice, self._unheard)
                voices[voice] = _heard(before, somebody, int(newly.sum()))
        kept = len(voices)
        past = np.pad(memory.labels, ((0, 0), (0, kept - memory.labels.shape[1])))
        labels = np.concatenate([past, speaking[: last - first, :kept] > 0])
        heard = [voices[number] for number in range(kept)]
        whose = joined(heard, self._tuning.rules, least=wishes.num_speakers)
        for younger, older in enumerate(whose):
            if older != younger:
                voices[older] = voices[older].with_more_of(voices[younger])
                voices[younger] = self._gone
                for frames in (labels, speaking):
                    frames[:, older] = np.maximum(frames[:, older], frames[:, younger])
                    frames[:, younger] = 0
        settled_frame = scene.first_frame + last
        settled = _edge(settled_frame) if step.look_ahead else step.end_sample
        return Finding(
            OnlineMemory(
                tuple(voices[number] for number in range(kept)),
                max(memory.settled_sample, settled),
                settled_frame,
                labels[-_WINDOW_SAMPLES // segmenting.FRAME_SAMPLES :],
                {k: frames for k, frames in sound.items() if k * STEP_SAMPLES <= step.end_sample},
            ),
            speaking,
            _edges(memory, scene.first_frame + len(activity), step.end_sample),
        )

    def _told_apart(self, scene: _Scene) -> _Scene:
        """The same scene, in which whoever sounds like several people one by one is several."""
        parts = []
        for person, said in enumerate(scene.activity.T):
            changes = self._changes(scene, np.flatnonzero(scene.alone(person)))
            for begin, end in pairwise([0, *changes, len(said)]):
                part = np.zeros_like(said)
                part[begin:end] = said[begin:end]
                parts.append(part)
        return replace(scene, activity=np.stack(parts, axis=1))

    def _changes(self, scene: _Scene, alone: NDArray[np.intp]) -> list[int]:
        """The frames at which another voice begins in what somebody says alone."""
        places = np.arange(_SIDE_FRAMES, len(alone) - _SIDE_FRAMES + 1, _CHANGE_FRAMES)
        if not len(places):
            return []
        distance = np.arange(len(alone)) - places[:, None]
        before = (distance < 0) & (distance >= -_WIDEST_SIDE_FRAMES)
        after = (distance >= 0) & (distance < _WIDEST_SIDE_FRAMES)
        sides = self._embedder.embed(scene.sound[alone], np.concatenate([before, after]))
        likeness = (sides[: len(places)] * sides[len(places) :]).sum(axis=1)
        if likeness.min() >= self._tuning.change:
            return []
        place = int(places[likeness.argmin()])
        # Amid the pause between the two, if there is one.
        change = int(scene.centers[alone[place - 1]] + scene.centers[alone[place]] + 1) // 2
        earlier = self._changes(scene, alone[:place])
        return [*earlier, change, *self._changes(scene, alone[place:])]

    def _people(self, scene: _Scene, memory: OnlineMemory) -> tuple[list[int], list[Somebody]]:
        """Who speaks in a window, in the order in which they do where nothing is decided yet."""
        first = memory.settled_frame - scene.first_frame
        active = scene.activity > 0
        past = memory.labels[len(memory.labels) - first :]
        present = [person for person in range(active.shape[1]) if active[:, person].any()]

        def begins(person: int) -> int:
            later = np.flatnonzero(active[first:, person])
            return int(later[0]) if len(later) else len(active)

        order = sorted(present, key=begins)
        masks = np.array([_newest(scene.alone(person), self._tuning.newest) for person in order])
        counts = masks.sum(axis=1) if order else []
        told = [row for row, count in enumerate(counts) if count >= _MIN_VOICE_FRAMES]
        embeddings = dict(
            zip(told, self._embedder.embed(scene.sound, masks[told]), strict=True) if told else ()
        )
        return order, [
            Somebody(
                embeddings.get(row),
                float(counts[row]) * _VOICE_FRAME_S if active[first:, person].any() else 0.0,
                _share(active[:first, person], past),
                tuple(not (active[:, person] & active[:, other]).any() for other in order),
            )
            for row, person in enumerate(order)
        ]

    def _sounds(self, steps: Sequence[Step]) -> list[dict[int, FloatArray]]:
        """The voice frames of each step's window, by the number of the step that heard them."""
        found: list[dict[int, FloatArray]] = []
        missing: dict[int, list[tuple[int, int, FloatArray]]] = defaultdict(list)
        for row, step in enumerate(steps):
            kept = _memory(step).sound
            found.append({})
            for number in _numbers(step):
                if number in kept:
                    found[row][number] = kept[number]
                    continue
                reach = min(number * STEP_SAMPLES, step.end_sample)
                begin, end = piece_of(step.first_sample, reach, _PIECE_FEATURES)
                piece = step.audio[begin - step.first_sample : end - step.first_sample]
                if len(piece):
                    missing[len(piece)].append((row, number, piece))
        for pieces in missing.values():
            for at in range(0, len(pieces), _PIECES_AT_ONCE):
                some = pieces[at : at + _PIECES_AT_ONCE]
                frames = self._embedder.frames(np.stack([piece for _, _, piece in some]))
                for (row, number, _), heard in zip(some, frames, strict=True):
                    step = steps[row]
                    end = num_frames(min(number * STEP_SAMPLES, step.end_sample))
                    found[row][number] = heard[_first_frame(step, number) - end :].copy()
        return found

    def _enrol(self, number: int, clip: FloatArray) -> Voice:
        memory = OnlineMemory((), 0, 0, np.zeros((0, 0), bool))
        heard = clip[:_WINDOW_SAMPLES]
        step = Step(memory, heard, len(heard), 0, Wishes(1))
        if len(heard) >= segmenting.MIN_SAMPLES:
            [activity] = self._segmenter.activity(heard[None])
            [sound] = self._sounds([step])
            scene = _scene(step, np.where(activity >= self._tuning.active, activity, 0), sound)
            mask = scene.alone(int(activity.sum(axis=0).argmax()))
            said_s = mask.sum() * _VOICE_FRAME_S
            if said_s >= _ENROLLED_S:
                [embedding] = self._embedder.embed(scene.sound, mask[None])
                return Voice(embedding * np.float32(said_s), float(said_s))
        raise InvalidRequestError(
            f"speaker {number} is enrolled with less than {_ENROLLED_S:g} s of speech"
        )


def _memory(step: Step) -> OnlineMemory:
    assert isinstance(step.memory, OnlineMemory)
    return step.memory


def _newest(mask: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """The last so many places of a mask."""
    found: NDArray[np.bool_] = mask & (np.cumsum(mask[::-1])[::-1] <= most)
    return found


def _heard(voice: Voice, somebody: Somebody, num_frames: int) -> Voice:
    """A voice after so many more frames of somebody who has it; at first, after one at least."""
    if somebody.embedding is None:
        return voice
    frames = num_frames if voice.seconds else max(1, num_frames)
    return voice.with_more(somebody.embedding, frames * _VOICE_FRAME_S)


def _scene(step: Step, activity: FloatArray, sound: Mapping[int, FloatArray]) -> _Scene:
    start = _window_start(step)
    frames = [sound[number] for number in sorted(sound)] or [np.zeros((0, 1), np.float32)]
    heard = np.concatenate(frames)
    numbers = np.arange(len(heard)) + (_first_frame(step, min(sound)) if sound else 0)
    middle = (numbers + 0.5) * voicing.FRAME_SAMPLES + voicing.FIRST_FRAME_SAMPLE
    offset = middle - start - segmenting.FIRST_FRAME_SAMPLE
    centers = np.minimum(offset // segmenting.FRAME_SAMPLES, len(activity) - 1)
    return _Scene(start // segmenting.FRAME_SAMPLES, activity, centers.astype(np.int64), heard)


def _share(active: NDArray[np.bool_], past: NDArray[np.bool_]) -> FloatArray:
    """(voices,) how much of somebody's decided speech was each voice's."""
    common = (past & active[:, None]).sum(axis=0)
    share: FloatArray = (common / max(int(active.sum()), _FULL_PAST_FRAMES)).astype(np.float32)
    return share


def _window_start(step: Step) -> int:
    """Where a step's window begins: at a frame."""
    frame = segmenting.FRAME_SAMPLES
    return max(step.first_sample, -(-(step.end_sample - _WINDOW_SAMPLES) // frame) * frame)


def _edge(frame: int) -> int:
    """Where a frame begins; the first one has what lies before it."""
    return frame * segmenting.FRAME_SAMPLES + segmenting.FIRST_FRAME_SAMPLE if frame else 0


def _edges(memory: OnlineMemory, end_frame: int, end_sample: int) -> NDArray[np.int64]:
    inner = [_edge(frame) for frame in range(memory.settled_frame + 1, end_frame)]
    edges = np.array([memory.settled_sample, *inner, end_sample], np.int64)
    return np.clip(edges, memory.settled_sample, end_sample)


def _settled_frame(step: Step, scene: _Scene) -> int:
    """The first frame that is not decided behind this step."""
    memory, end = _memory(step), scene.first_frame + len(scene.activity)
    if not step.look_ahead:
        return max(memory.settled_frame, end)
    decided = step.end_sample - step.look_ahead - segmenting.FIRST_FRAME_SAMPLE
    return max(memory.settled_frame, min(decided // segmenting.FRAME_SAMPLES, end))


def _numbers(step: Step) -> Iterable[int]:
    """Steps that heard something of a step's window, from 1; the last may be partial."""
    return range(_window_start(step) // STEP_SAMPLES + 1, -(-step.end_sample // STEP_SAMPLES) + 1)


def _first_frame(step: Step, number: int) -> int:
    """The first voice frame that a step's number adds to those before it."""
    before = num_frames((number - 1) * STEP_SAMPLES)
    return max(before, step.first_sample // voicing.FRAME_SAMPLES)
