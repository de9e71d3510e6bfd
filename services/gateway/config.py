"""Settings of the gateway, read once at start from ``GATEWAY_*`` variables."""

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings
from services.gateway.fetch_hosts import FetchError, FetchHosts


class Settings(ServiceSettings):
    """What one gateway needs to know."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    host: str = "127.0.0.1"
    """Address that HTTP and WebSocket clients connect to."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port that HTTP and WebSocket clients connect to; 0: any free one."""
    grpc_address: str = "127.0.0.1:50050"
    """Where gRPC clients connect to, such as ``[::]:50050`` or ``unix:/run/gateway.sock``."""
    tls_cert_file: str = ""
    """Certificate for clients, PEM with its chain, read again when it changes: they speak TLS then,
    over HTTP, WebSocket and gRPC; empty: plaintext."""
    tls_key_file: str = Field(default="", validate_default=True)
    """Its private key, PEM, without a passphrase."""
    vad_target: str = "127.0.0.1:50051"
    """The VAD service: ``unix:/path``, ``host:port`` or ``dns:///host:port``."""
    asr_targets: tuple[str, ...] = Field(default=("127.0.0.1:50052",), min_length=1)
    """One target per pool of recognisers, as a JSON list; the first is the default."""
    diarizer_target: str = ""
    """The diarizer service; empty: there is none, and everybody is speaker 1."""
    diarize: bool = False
    """Whether speakers are told apart in sessions of protocols that cannot ask for it, if there is
    a diarizer."""
    translator_target: str = ""
    """The translator service; empty: there is none."""
    target_language: str = Field(default="", max_length=64)
    """Language into which sessions of /asr are translated that name none, such as pt, if there is a
    translator; empty: they are not translated."""
    keys_file: str = ""
    """File with names and hashes of the keys of which clients must present one, as `voxmesh key`
    prints them, read again when it changes; empty: the gateway is open."""
    origins: tuple[str, ...] = ()
    """Web pages that browsers may connect from, such as https://example.org, as a JSON list; empty:
    any."""
    language: str = Field(default="", pattern="^([a-z]{2,3})?$")
    """ISO 639-1 code of the language of sessions that name none; empty: detect it."""
    max_sessions: int = Field(default=64, ge=1, le=100_000)
    """Sessions served at once; one more is refused."""
    max_sessions_per_key: int = Field(default=0, ge=0, le=100_000)
    """The same for each key; 0: a key may have them all."""
    max_session_s: int = Field(default=8 * 3600, ge=1, le=7 * 24 * 3600)
    """Longest live session, in seconds of audio."""
    max_file_s: int = Field(default=4 * 3600, ge=1, le=24 * 3600)
    """Longest recording that is taken as an upload, in seconds of audio."""
    max_upload_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)
    """Largest upload, in bytes."""
    fetch_hosts: tuple[str, ...] = ()
    """Hosts that /v1/listen fetches recordings from where a client names a URL, as a JSON list:
    media.example.org, https://media.example.org:8443, http://10.0.0.7:9000; empty: none."""
    grpc_max_message_bytes: int = Field(default=32 * 1024 * 1024, ge=1024, le=1024 * 1024 * 1024)
    """Largest message that a gRPC client may send, in bytes: to Riva's Recognize, a recording."""
    ring_s: int = Field(default=60, ge=45, le=600)
    """Audio kept per session so that a stage can be restarted, in seconds. More than a recogniser's
    longest window, 30 s."""
    pre_roll_ms: int = Field(default=300, ge=0, le=2000)
    """Audio before the start of speech that the recogniser gets too, in milliseconds."""
    idle_s: float = Field(default=300.0, ge=0.05, le=24 * 3600)
    """A live client that sends nothing for so long is taken to have finished, in seconds."""
    listen_idle_s: float = Field(default=10.0, ge=0.05, le=24 * 3600)
    """A client of /v1/listen that sends nothing for so long, not even KeepAlive, is disconnected,
    in seconds."""
    resume_s: float = Field(default=60.0, ge=0.05, le=3600)
    """How long a session that may be resumed waits for its client to connect again, in seconds."""
    inbox_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024, le=1024 * 1024 * 1024)
    """Bytes taken from a client ahead of its session, so that pings are answered meanwhile."""
    max_messages_per_s: int = Field(default=2000, ge=1, le=100_000)
    """Messages taken from a connection in a second; one that sends more is read more slowly."""
    pcm_input: bool = True
    """Whether browsers on /asr are asked for PCM rather than for MediaRecorder's WebM."""
    open_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """How long a stage may take to accept a stream, in seconds."""
    hedge_s: float = Field(default=1.0, gt=0, le=60)
    """After so long another replica is asked too, and the first to accept it gets the stream, in
    seconds."""
    stall_s: float = Field(default=10.0, gt=0, le=600)
    """A stage that answers nothing for so long to live audio is restarted, in seconds."""
    file_stall_s: float = Field(default=120.0, gt=0, le=3600)
    """The same for uploads, which wait behind live audio, in seconds."""
    vad_patience_s: float = Field(default=5.0, ge=0, le=600)
    """Without the VAD for so long, everything counts as speech, in seconds."""
    asr_patience_s: float = Field(default=20.0, ge=0, le=600)
    """Without the recogniser for so long, the session ends with an error, in seconds."""

    diarizer_patience_s: float = Field(default=20.0, ge=0, le=600)
    """Without the diarizer for so long, everybody counts as one speaker, in seconds."""
    speaker_wait_s: float = Field(default=3.0, gt=0, le=60)
    """How long a live word waits at most to be told who said it, in seconds."""
    translation_wait_s: float = Field(default=5.0, gt=0, le=60)
    """How long a flush and the end of a live session wait at most for what is not translated yet,
    in seconds."""

    @field_validator("fetch_hosts")
    @classmethod
    def _hosts(cls, fetch_hosts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            FetchHosts(fetch_hosts)
        except FetchError as error:
            raise ValueError(str(error)) from error
        return fetch_hosts

    @field_validator("target_language")
    @classmethod
    def _with_translator(cls, target_language: str, info: ValidationInfo) -> str:
        if target_language and not info.data["translator_target"]:
            raise ValueError("needs a translator")
        return target_language

    @field_validator("tls_key_file")
    @classmethod
    def _both_of_tls(cls, tls_key_file: str, info: ValidationInfo) -> str:
        if bool(tls_key_file) != bool(info.data["tls_cert_file"]):
            raise ValueError("is set together with the certificate, or not at all")
        return tls_key_file
