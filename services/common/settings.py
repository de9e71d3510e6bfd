"""What the settings of all services have in common."""

import sys
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Settings that every service has. Read once at start, from variables with a prefix."""

    model_config = SettingsConfigDict(frozen=True, use_attribute_docstrings=True)

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port that serves Prometheus metrics; 0: none."""
    metrics_host: str = "127.0.0.1"
    """Address that serves Prometheus metrics."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious log lines that are written."""
    drain_s: float = Field(default=20.0, ge=0, le=3600)
    """How long a stopping replica lets its streams finish, in seconds."""
    otlp_endpoint: str = ""
    """OpenTelemetry collector that gets the spans, such as http://collector:4317; empty: none."""


Settings = TypeVar("Settings", bound=ServiceSettings)


def load(settings: type[Settings]) -> Settings:
    """Read the settings, or end the process with one line per variable that is wrong."""
    try:
        return settings()
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        for problem in error.errors():
            name = prefix + "_".join(str(part) for part in problem["loc"]).upper()
            # The input of a variable that is missing is all the others, secrets among them.
            got = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
            sys.stderr.write(f"{name}: {problem['msg']}{got}\n")
        raise SystemExit(2) from None


def table(settings: type[ServiceSettings]) -> str:
    """The settings as a Markdown table, for a README."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = "required" if field.is_required() else f"`{field.default!s}`"
        if default == "``":
            default = "empty"
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows)
