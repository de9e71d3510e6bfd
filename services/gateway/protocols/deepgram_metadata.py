"""What Deepgram's answers say about the request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.gateway.pools import ModelInfo
from services.gateway.protocols.deepgram_words import Body, offset


@dataclass(frozen=True, slots=True)
class Request:
    """A request, live or not."""

    request_id: str
    info: ModelInfo
    """The model that serves it."""
    extra: Mapping[str, str]
    """What the client wants to be told again."""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def result_metadata(self) -> Body:
        """What comes with each live result."""
        return {
            "request_id": self.request_id,
            "model_info": _model_info(self.info),
            "model_uuid": self.info.uuid,
            **self._extra(),
        }

    def metadata(self, *, sha256: str, num_samples: int, channels: int) -> Body:
        """What is said once.

        Args:
            sha256: Of the audio as it came, in hexadecimal.
            num_samples: Its length.
            channels: How many of its channels were transcribed apart.

        """
        created = self.created.isoformat(timespec="milliseconds")
        return {
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": sha256,
            "created": created.replace("+00:00", "Z"),
            "duration": offset(num_samples),
            "channels": channels,
            "models": [self.info.uuid],
            "model_info": {self.info.uuid: _model_info(self.info)},
            **self._extra(),
        }

    def _extra(self) -> Body:
        return {"extra": dict(self.extra)} if self.extra else {}


def _model_info(info: ModelInfo) -> Body:
    return {"name": info.name, "version": info.version, "arch": info.engine}
