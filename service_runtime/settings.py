"""The settings that both services read from the environment, once, in their bootstrap."""

import sys
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_runtime.uploads import MIB, UploadLimits


class Settings(BaseSettings):
    """Each field is the environment variable of its name in capitals. README.md explains them to operators."""

    # What is wrong with a setting is told without its value, which may be a password.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def from_environment(kind: type[SettingsT]) -> SettingsT:
    """The settings of the process. Where they are wrong, it ends with status 2 and a line for each that is."""
    try:
        return kind()
    except ValidationError as error:
        for wrong in error.errors(include_url=False, include_input=False, include_context=False):
            name = "_".join(map(str, wrong["loc"])).upper()
            print(f"{name}: {wrong['msg']}", file=sys.stderr)  # noqa: T201 - there is no log yet
        sys.exit(2)


class RuntimeSettings(Settings):
    """What every service must be told."""

    workers: int = Field(default=1, ge=1, le=64)
    log_level: str = Field(default="info", pattern="(?i)^(debug|info|warning|error)$")

    auth_issuer: str = Field(min_length=1)
    auth_audience: str = Field(min_length=1)
    auth_jwks: str = Field(min_length=1)

    max_dicom_file_size_mb: int = Field(default=100, ge=1)
    max_dicom_files_per_upload: int = Field(default=500, ge=1)
    max_upload_size_mb: int = Field(default=2048, ge=1)
    upload_idle_seconds: float = Field(default=60, gt=0)

    max_concurrent_rpcs: int = Field(default=200, ge=1)
    readiness_interval_seconds: float = Field(default=2, gt=0)
    # How long a stopping service goes on answering after its health says NOT_SERVING, so that balancers notice.
    drain_seconds: float = Field(default=1, ge=0)
    # How long a stopping service waits for the calls that are under way.
    shutdown_grace_seconds: float = Field(default=30, ge=0)

    @property
    def upload_limits(self) -> UploadLimits:
        """The limits on one upload request."""
        return UploadLimits(
            file_bytes=self.max_dicom_file_size_mb * MIB,
            request_bytes=self.max_upload_size_mb * MIB,
            files=self.max_dicom_files_per_upload,
            idle_seconds=self.upload_idle_seconds,
        )
