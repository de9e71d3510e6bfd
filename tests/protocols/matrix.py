"""The clients that have to be served, and what each has to observe."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A client, and what it observes. Tests name the rows that they show: ``pytest.mark.row``."""

    name: str
    client: str
    """``{NAME}`` stands for the SDK of ``envs/NAME`` and its version."""
    observed: str
    waits_for: str = ""
    """What of it nobody observes yet, and what has to come first."""
    unless: str = ""
    """What of it is not as the vendor has it, for good."""
    not_run: str = ""
    """Why there is no test."""


_FLUX = "`/v2/listen` is not served yet"
_RAW = "WebSocket"

ROWS = (
    Row(
        "D1",
        "{deepgram-7}, asyncio, live",
        "only messages of the SDK's types, words before they are final and then, `SpeechStarted`,"
        " `UtteranceEnd`, an answer to `Finalize`, who said each word, `Metadata` last, then the"
        " close",
    ),
    Row(
        "D2",
        "{deepgram-7}, threads, live",
        "finals and nothing else; it leaves without a word, and its listener ends",
    ),
    Row(
        "D3",
        "{deepgram-7}, recordings",
        "typed answers to bytes, chunks and URLs, the detected language, utterances, paragraphs,"
        " channels; a file that is none is a 400 that explains itself; models; a temporary token",
        unless="`transcribe_url` reaches only hosts that are listed (`GATEWAY_FETCH_HOSTS`)",
    ),
    Row("D4", "{deepgram-7}, Flux", "turns", not_run=_FLUX),
    Row(
        "D5",
        "{deepgram-5}, asyncio, live",
        "the same as D1 with `language=multi`: every final names its language",
    ),
    Row(
        "D6",
        "{deepgram-3} and {deepgram-4}, live",
        "`start()`, an answer to `Finalize`, the rest and `Metadata` before `finish()` closes; no"
        " error and no unknown event",
    ),
    Row(
        "D7",
        "{deepgram-3} and {deepgram-4}, recordings",
        "the transcript of an upload without a type; `DeepgramApiError` with the message",
    ),
    Row(
        "D8",
        "{deepgram-js-5}, {deepgram-js-4} and {deepgram-js-3}, live and recordings",
        "close 1000 and no second connection, every event, a key in the subprotocol of a browser's"
        " WebSocket",
    ),
    Row(
        "L1",
        "{livekit-deepgram}",
        "speech starts and ends, every word once, in English and with `multi`; the stream ends; a"
        " recording",
    ),
    Row("L1f", "{livekit-deepgram}, Flux", "turns", not_run=_FLUX),
    Row(
        "P1",
        "{pipecat-deepgram}",
        "interim and final frames, one of them the answer to `Finalize`, no error frame",
    ),
    Row("P1f", "{pipecat-deepgram}, Flux", "turns", not_run=_FLUX),
    Row(
        "K1",
        "Deepgram's load test for k6",
        "finite latencies",
        not_run="k6 and the script are in no package registry",
    ),
    Row("W1", _RAW, "finals that tile the audio, every field, `Metadata` last, close 1000"),
    Row("W2", _RAW, "a WAV file without `encoding`"),
    Row("W3", _RAW, "a WAV file with its header, as `linear16`"),
    Row("W4", _RAW, "mu-law at 8 kHz"),
    Row("W5", _RAW, "two channels, each with its own results"),
    Row("W6", _RAW, "`KeepAlive` in any form, with no answer"),
    Row("W7", _RAW, "commands in binary frames"),
    Row("W8", _RAW, "texts that mean nothing, and `Configure`: the connection goes on"),
    Row("W9", _RAW, "`Finalize` at any time, any number of times: no word twice"),
    Row("W10", _RAW, "an empty frame for `CloseStream`"),
    Row("W11", _RAW, "leaves without `CloseStream`, and is let go"),
    Row("W12", _RAW, "breaks off, and leaves nothing behind, nor a line in the log"),
    Row("W13", _RAW, "no audio: `Metadata` of nothing"),
    Row(
        "W14",
        _RAW,
        "parameters of every kind are taken",
        unless="`redact` is refused: what cannot be kept secret is not taken",
    ),
    Row("W15", _RAW, "`True`, `TRUE` and `1` are true"),
    Row("W16", _RAW, "`endpointing` of every kind; none where it is off"),
    Row("W17", _RAW, "languages are named with `multi`"),
    Row("W18", _RAW, "`utterance_end_ms` without interim results"),
    Row("W19", _RAW, "keys in subprotocols, of which the first is echoed"),
    Row("W20", _RAW, "keys with `Token` and `Bearer` in any case"),
    Row("W21", _RAW, "a wrong key is a 401 with `dg-error`"),
    Row("W22", _RAW, "a wrong parameter is a 400 in Deepgram's form"),
    Row("W23", _RAW, "what is no audio is closed with 1008, `DATA-0000`"),
    Row("W24", _RAW, "frames of any size"),
    Row("W25", _RAW, "a ping is answered, also while nothing is recognised"),
    Row("W26", _RAW, "silence on the wire is closed with 1011, `NET-0001`"),
    Row("W27", _RAW, "`KeepAlive` keeps the stream, and time is counted in audio"),
    Row(
        "O1",
        "{openai-3}, {openai-2} and {openai-1}, recordings",
        "typed answers in every form, streams whose deltas are the text, segments with speakers,"
        " log probabilities, translations, models, errors with type and code",
    ),
    Row(
        "O2",
        "{openai-3}, {openai-2} and {openai-1}, Realtime",
        "one item for each turn from start to `completed`, deltas that make its transcript; commits"
        " and clears of its own, an empty commit is an error that ends nothing; segments with"
        " speakers",
    ),
    Row("O3", "{openai-1}, Realtime, beta", "the same in the words of the beta"),
    Row(
        "O4",
        "{openai-js}, recordings, and Realtime over TLS",
        "subtitles as text, words, a stream, models, an error object; `session.created` first, then"
        " what was said",
    ),
    Row(
        "L2",
        "{livekit-openai}",
        "recordings with their language; live, speech starts and ends, interim and final texts",
    ),
    Row("L2b", "{livekit-openai}, its own VAD", "one text for each commit"),
    Row(
        "P2",
        "{pipecat-openai}, Realtime",
        "interim and final frames, with either side's VAD, no error frame",
    ),
    Row("V1", "vLLM's example, WebSocket", "an id, deltas that make the text, the text"),
    Row(
        "R1",
        "{riva}, gRPC",
        "models; offline words with times; live, interim and final results, the last one final,"
        " words with the tags of their speakers; a file with its header",
    ),
    Row(
        "R2",
        "{riva-realtime}, Realtime",
        "its configuration is taken; everything in the last result",
    ),
    Row("P3", "{pipecat-nvidia}, gRPC", "interim and final frames, no error frame"),
    Row(
        "G1",
        "google-cloud-speech",
        "texts",
        not_run="optional, and not served: clients could hardly be pointed here",
    ),
    Row(
        "A1", "`/asr`, WebSocket", "`config`, whole states, every word in `lines`, `ready_to_stop`"
    ),
    Row("A2", "`/asr`, WebSocket, diffs", "lines that can be rebuilt while the last one grows"),
    Row(
        "A3",
        "`/asr`, WebSocket",
        "a wrong token is a 401, an unsupported language an error and 4400; texts, odd sizes and"
        " late audio do no harm",
    ),
    Row(
        "A4",
        "{wlk}: its web page, and its test client",
        "the transcript on the page after the stop, never blanked; every word, from full states and"
        " from diffs",
    ),
)

TRAPS = (
    "A close code other than 1000 after `CloseStream`, or 44xx for a refusal: clients connect again"
    " and again",
    "`Results` without one of the fields that some client needs",
    "No echo of a subprotocol: browsers do not connect",
    "`Finalize` without an answer, or with text that was final before",
    "The rest later than half a second after `CloseStream`: it is not waited for (tests see to the"
    " order, not to the time)",
    "Messages that nobody knows, or errors out of nowhere",
    "An empty list of languages, or codes that are not known",
    "Errors in the form of a web framework, subtitles as JSON, durations as strings, no `usage`",
    "Realtime: text that is revised, an item's id used twice, errors for what is harmless, a model"
    " that is required, anything before `session.created`, turns cut twice, the wrong rate",
    "No TLS: two SDKs speak nothing else",
    "`model=None`, `True`, a header in raw audio, no type of content, the file last in the form,"
    " `KeepAlive` before audio, `Finalize` twice",
    "Two vendors at `/v1/models`, five dialects at `/v1/realtime`",
    "Diffs of `/asr`, read by the rule that its documents have",
)
"""What breaks clients, and most of them first. Tests name those that they keep from coming back:
``pytest.mark.trap``, counted from 1."""
