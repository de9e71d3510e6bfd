"""Streaming Sortformer: a network that tells speakers apart in order of their arrival.

It hears a chunk at a time, a few frames that follow it, and what it keeps of the past: the newest
frames, and the best ones of each speaker. So it needs no clustering, and no long window.

Source: Medennikov et al., "Streaming Sortformer: Speaker Cache-Based Online Speaker Diarization
with Arrival-Time Ordering", 2025 (arXiv:2507.18446).
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from services.common.audio import FloatArray
from services.common.errors import InvalidRequestError
from services.common.timeline import seconds
from services.diarizer.diarizer import Finding, Memory, Step, Wishes
from services.diarizer.engines.sortformer_memory import Cache, SortformerMemory, parse

FRAME_SAMPLES = 1280
"""80 ms: eight windows of the spectrogram."""
HOP_SAMPLES = 160
WINDOW_SAMPLES = 512
_BEFORE_SAMPLES = 256
"""A frame's first window begins so much before it."""
_LEAD_SAMPLES = 40
"""Its last window hears so much behind it. Frames begin so much before the multiples of their
length: what a chunk needs ends where a step ends."""
_ENROLLED_S = 1.0
"""What somebody enrolled must have said."""
_ENROLLED_FRAMES = 190
"""What is heard of it, 15 s at most: the network was trained on chunks no longer than 30."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How much is heard at a time, in frames."""

    chunk: int
    look_ahead: int
    """What has to be heard behind a chunk."""


def calmest(presets: Iterable[Preset], look_ahead: int) -> Preset:
    """The one that hears most ahead, but no more than may be; else the one that hears least.

    Args:
        presets: What a model knows.
        look_ahead: What may be heard behind a moment before it is decided, in frames.

    """
    known = sorted(presets, key=lambda preset: preset.look_ahead)
    return [one for one in known if one in known[:1] or one.look_ahead <= look_ahead][-1]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a network makes of a stream's chunk."""

    probabilities: FloatArray
    """(rows, speakers) float32, of the chunk and of what follows it: how probably each speaks."""
    cache: Cache
    """With the chunk, and without what follows it."""


class Network(Protocol):
    """The network and its cache, on whatever it runs. It keeps nothing between two calls."""

    name: str
    num_speakers: int
    rows: int
    """How often in a frame it says who speaks."""
    left_frames: int
    """What it hears again before a chunk."""

    def preset(self, look_ahead: int) -> Preset:
        """See ``calmest``."""
        ...

    def empty(self) -> Cache:
        """The cache of a stream that has heard nothing."""
        ...

    def load(self, data: bytes) -> Cache:
        """What ``Cache.dump`` wrote.

        Raises:
            CheckpointError: These are not such bytes.

        """
        ...

    def hear(self, audio: FloatArray, caches: Sequence[Cache], chunk: int) -> list[Heard]:
        """Hear a chunk of each stream.

        Args:
            audio: (streams, samples) float32: the frames before the chunk, it, and what follows,
                from where the window of the first one begins to where that of the last one ends.
            caches: What each stream heard before.
            chunk: The chunk's length in frames.

        Raises:
            DeviceError: The model failed.

        """
        ...


class Sortformer:
    """Diarizer that hears chunks of one length."""

    def __init__(self, network: Network, preset: Preset, *, active: float) -> None:
        """Use a network.

        Args:
            network: The network.
            preset: How much it hears at a time.
            active: Probability from which somebody counts as speaking.

        """
        self.name = f"{network.name}/{preset.chunk}+{preset.look_ahead}"
        self.step_samples = preset.chunk * FRAME_SAMPLES
        longest = network.left_frames + preset.chunk + preset.look_ahead + 1
        self.context_samples = -(-longest // preset.chunk) * self.step_samples
        self._network = network
        self._preset = preset
        self._active = active

    def start(self, enrolled: Sequence[FloatArray]) -> SortformerMemory:
        """See ``Diarizer``."""
        cache = self._network.empty()
        outputs: list[int] = []
        for number, clip in enumerate(enrolled, 1):
            chunk = min(len(clip) // FRAME_SAMPLES, _ENROLLED_FRAMES)
            audio = self._window(clip, 0, 0, chunk)
            [heard] = self._network.hear(audio[None], [cache], chunk)
            said = (heard.probabilities >= self._active).sum(axis=0)
            said[outputs] = 0
            output = int(said.argmax())
            if seconds(int(said[output]) * FRAME_SAMPLES // self._network.rows) < _ENROLLED_S:
                raise InvalidRequestError(
                    f"speaker {number} is enrolled with less than {_ENROLLED_S:g} s of speech, or"
                    " sounds like one before"
                )
            outputs.append(output)
            cache = heard.cache
        return SortformerMemory(cache, cache, 0, 0, 0, tuple(outputs))

    def paused(self, memory: Memory, at_sample: int) -> SortformerMemory:
        """See ``Diarizer``."""
        assert isinstance(memory, SortformerMemory)
        whole = memory.whole
        return SortformerMemory(whole, whole, at_sample, 0, at_sample, memory.outputs)

    def load(self, data: bytes) -> SortformerMemory:
        """See ``Diarizer``."""
        return parse(data, self._network.load, self._network.num_speakers)

    def bucket(self, step: Step) -> Hashable:
        """See ``Diarizer``."""
        return self._frames(step)

    def advance(self, steps: Sequence[Step]) -> list[Finding]:
        """See ``Diarizer``."""
        chunk, following = self._frames(steps[0])
        if not chunk:
            return [_nobody_yet(step) for step in steps]
        windows = [
            self._window(step.audio, step.first_sample - memory.origin, memory.num_frames, num)
            for step, memory, num in ((step, _memory(step), chunk + following) for step in steps)
        ]
        caches = [_memory(step).cache for step in steps]
        heard = self._network.hear(np.stack(windows), caches, chunk)
        return [self._find(step, chunk, one) for step, one in zip(steps, heard, strict=True)]

    def _frames(self, step: Step) -> tuple[int, int]:
        """The length of a step's chunk, and of what it hears behind it, in frames."""
        memory = _memory(step)
        heard = step.end_sample - memory.origin
        if not step.look_ahead:
            return -(-heard // FRAME_SAMPLES) - memory.num_frames, 0
        frames = heard // FRAME_SAMPLES - memory.num_frames
        following = min(frames, self._preset.look_ahead)
        return frames - following, following

    def _window(self, audio: FloatArray, first: int, frame: int, num_frames: int) -> FloatArray:
        """The samples of some frames, and of those before them; silence where there is no audio.

        Args:
            audio: (num_samples,) float32.
            first: Position of its first sample, from where frame 0 begins.
            frame: The first of the frames.
            num_frames: How many they are.

        """
        left = self._network.left_frames
        begin = (frame - left) * FRAME_SAMPLES - _LEAD_SAMPLES - _BEFORE_SAMPLES
        length = (left + num_frames) * FRAME_SAMPLES - HOP_SAMPLES + WINDOW_SAMPLES
        window = np.zeros(length, np.float32)
        low, high = max(begin, first, 0), min(begin + length, first + len(audio))
        window[low - begin : high - begin] = audio[low - first : high - first]
        return window

    def _find(self, step: Step, chunk: int, heard: Heard) -> Finding:
        memory, end = _memory(step), step.end_sample
        row_samples = FRAME_SAMPLES // self._network.rows
        begin = memory.origin + memory.num_frames * FRAME_SAMPLES - _LEAD_SAMPLES
        edges = begin + row_samples * np.arange(len(heard.probabilities) + 1)
        edges = np.append(edges[:-1].clip(memory.settled_sample, end), end)
        lasting = edges[1:] > edges[:-1]
        settled = begin + chunk * FRAME_SAMPLES if step.look_ahead else end
        settled = max(settled, memory.settled_sample)
        rows = heard.probabilities[lasting]
        edges = np.append(edges[:-1][lasting], end)
        num_settled = int(np.searchsorted(edges[1:], settled, side="right"))
        activity, outputs = _ascribed(rows, self._active, memory.outputs, step.wishes)
        known = len(memory.outputs)
        kept = [
            output
            for number, output in enumerate(outputs)
            if number < known or activity[:num_settled, number].any()
        ]
        if step.look_ahead:
            after = SortformerMemory(
                heard.cache,
                heard.cache,
                memory.origin,
                memory.num_frames + chunk,
                settled,
                tuple(kept),
            )
        else:
            after = replace(memory, whole=heard.cache, settled_sample=settled, outputs=tuple(kept))
        return Finding(after, activity, edges)


def _memory(step: Step) -> SortformerMemory:
    assert isinstance(step.memory, SortformerMemory)
    return step.memory


def _nobody_yet(step: Step) -> Finding:
    """Where too little is heard for a chunk."""
    memory = _memory(step)
    edges = np.array([memory.settled_sample, step.end_sample], np.int64)
    return Finding(memory, np.zeros((1, len(memory.outputs)), np.float32), edges)


def _ascribed(
    probabilities: FloatArray, active: float, known: Sequence[int], wishes: Wishes
) -> tuple[FloatArray, list[int]]:
    """Who of the speakers speaks, those who are new behind those who are known.

    Where there are to be no more of them, what somebody else says is ascribed to whoever of them is
    likeliest to speak there.

    Args:
        probabilities: (rows, outputs) of the network.
        active: From which somebody counts as speaking.
        known: The outputs of the speakers who are known.
        wishes: How many there can be.

    Returns:
        (rows, speakers) float32, 0 where they do not speak; and the output of each speaker.

    """
    speaking = np.where(probabilities >= active, probabilities, 0)
    heard = [output for output in range(speaking.shape[1]) if speaking[:, output].any()]
    strangers = [output for output in heard if output not in known]
    strangers.sort(key=lambda output: int(np.flatnonzero(speaking[:, output])[0]))
    room = max(0, (wishes.num_speakers or wishes.max_speakers) - len(known))
    outputs = [*known, *strangers[:room]]
    activity = speaking[:, outputs]
    for output in strangers[room:]:
        rows = np.flatnonzero(speaking[:, output])
        likeliest = probabilities[rows][:, outputs].argmax(axis=1)
        np.maximum.at(activity, (rows, likeliest), speaking[rows, output])
    return activity, outputs
