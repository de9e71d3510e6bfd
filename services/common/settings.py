"""What the settings of all services have in common."""

import sys
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator
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
    mtls_ca_file: str = ""
    """CA that signs the certificates of all services of the mesh, PEM. With it they prove to each
    other who they are, but for Unix sockets; empty: plaintext."""
    mtls_cert_file: str = ""
    """This service's certificate, PEM, read again when it changes."""
    mtls_key_file: str = Field(default="", validate_default=True)
    """Its private key, PEM, without a passphrase."""

    @field_validator("mtls_key_file")
    @classmethod
    def _all_of_mtls(cls, mtls_key_file: str, info: ValidationInfo) -> str:
        chosen = (info.data["mtls_ca_file"], info.data["mtls_cert_file"], mtls_key_file)
        if any(chosen) and not all(chosen):
            raise ValueError("is set together with the CA and the certificate, or not at all")
        return mtls_key_file


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
