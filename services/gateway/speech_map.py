"""Where somebody speaks -> what the recogniser hears."""

from services.common.timeline import samples_of_ms
from services.gateway.route import Route
from services.gateway.transcript import Transcript

POST_ROLL_SAMPLES = samples_of_ms(200)
"""Audio after the end of live speech that is heard at least: a final consonant fades slowly. What
the VAD has let through before it was sure of the end is heard too."""

RECORDED_POST_ROLL_SAMPLES = samples_of_ms(600)
"""Audio after the end of recorded speech that is heard."""

RECORDED_HOLD_SAMPLES = samples_of_ms(1000)
"""Recorded speech is heard this late, when the VAD is sure of its end. So what is heard behind an
end does not depend on how soon it is known, and a recording reads the same each time."""

DEAF_PAUSE_SAMPLES = samples_of_ms(1000)
"""Without a VAD, speech ends where no word has followed for so long. Words are placed less exactly
than the VAD places speech, and the newest are heard a step late."""

GAP_SAMPLES = samples_of_ms(250)
"""Silence is told of in pieces no shorter than this: four messages a second, at most."""


class SpeechMap:
    """Follows the events of the VAD and routes the lane accordingly.

    What is routed never changes. Events that the VAD repeats after a restart change nothing,
    because they speak of edges that are settled.
    """

    def __init__(self, transcript: Transcript, *, pre_roll_samples: int, live: bool = True) -> None:
        """Create the map of a lane that starts in silence.

        Args:
            transcript: Is told where speech starts and ends.
            pre_roll_samples: Audio before the start of speech that is heard too.
            live: Whether somebody speaks now: speech is heard at once, and its end asks the
                recogniser for a decision. A recording gets long windows, which are cheaper and read
                better.

        """
        self.route = Route()
        self._transcript = transcript
        self._pre_roll = pre_roll_samples
        self._post_roll = POST_ROLL_SAMPLES if live else RECORDED_POST_ROLL_SAMPLES
        self._hold = 0 if live else RECORDED_HOLD_SAMPLES
        self._live = live
        self._speaking = False
        self._edge = 0
        """Position of the last start or end of speech."""
        self._closing = False
        """Whether speech has ended and its last samples are not routed yet."""
        self._deaf = False
        self._num_words = 0
        """Words that were said when speech ended last, as far as words tell."""
        self._through = 0
        self._settled = 0

    @property
    def quiet_sample(self) -> int:
        """Position before which everything that is speech is routed."""
        if self._speaking or self._closing:
            return self.route.end_sample
        return max(self._settled, self.route.end_sample)

    def started(self, first_sample: int) -> None:
        """Speech starts here."""
        if self._deaf or self._speaking or first_sample < self._edge:
            return
        begin = first_sample - self._pre_roll
        if self._closing and begin > self._edge + self._post_roll:
            self._close(begin)
        elif self._closing:
            self.route.add_audio(begin)
        self._closing = False
        self.route.add_gap(begin)
        self._speaking = True
        self._edge = first_sample
        self._transcript.start_speech(first_sample)

    def ended(self, end_sample: int) -> None:
        """Speech ends here."""
        if self._deaf or not self._speaking or end_sample <= self._edge:
            return
        self._speaking = False
        self._edge = end_sample
        self._transcript.end_speech(end_sample)
        # Speech that was cut for its length starts again at once: wait for the next event.
        self._closing = True

    def heard(self, through_sample: int, settled_sample: int) -> None:
        """Everything before one position is classified, before the other for good."""
        if self._deaf or (through_sample <= self._through and settled_sample <= self._settled):
            return
        self._through = max(self._through, through_sample)
        self._settled = max(self._settled, settled_sample)
        if self._speaking:
            self.route.add_audio(through_sample - self._hold)
            return
        if self._closing:
            if self._through < self._edge + self._post_roll:
                return
            self._close(self._through)
        quiet = settled_sample - self._pre_roll
        if quiet - self.route.end_sample >= GAP_SAMPLES:
            self.route.add_gap(quiet)

    def flush(self, received_sample: int) -> int:
        """Have everything heard so far decided; the position of the mark.

        The VAD has decided everything before ``received_sample`` already.
        """
        self._settle(received_sample)
        return self.route.add_mark()

    def listen_to_all(self) -> None:
        """There is no VAD any more: from here on everything counts as speech."""
        if not self._speaking:
            self._transcript.start_speech(self.route.end_sample)
        self._deaf = True
        self._speaking = True
        self._closing = False

    def follow_words(self) -> None:
        """Without a VAD, live speech ends where no word has followed for a while.

        It starts with a word then. Everything is heard all the same.
        """
        transcript = self._transcript
        if not (self._deaf and self._live and transcript.tail_known):
            return
        last = transcript.speech[-1]
        if last.end_sample is not None:
            said = (*transcript.words[self._num_words : self._num_words + 1], *transcript.tail)
            if said:
                transcript.start_speech(max(said[0].first_sample, last.end_sample))
        elif transcript.words and not transcript.tail:
            end_sample = transcript.words[-1].end_sample
            paused = transcript.heard_sample - end_sample >= DEAF_PAUSE_SAMPLES
            if paused and end_sample > last.first_sample:
                self._num_words = len(transcript.words)
                transcript.end_speech(end_sample)
                self.route.add_mark()

    def received(self, end_sample: int) -> None:
        """Audio has come in; it is routed at once where there is no VAD."""
        if self._deaf:
            self.route.add_audio(end_sample)

    def finish(self, end_sample: int) -> None:
        """The lane ends here."""
        self._settle(end_sample)
        self.route.add_gap(end_sample)
        self.route.complete()

    def _settle(self, end_sample: int) -> None:
        if self._speaking:
            self.route.add_audio(end_sample)
        elif self._closing:
            self._close(end_sample)

    def _close(self, limit_sample: int) -> None:
        self._closing = False
        self.route.add_audio(min(self._edge + self._post_roll, limit_sample))
        if self._live:
            self.route.add_mark()
