"""The settings of tag_service, from the environment. README.md explains them to operators."""

from pydantic import Field, SecretStr, field_validator

from service_runtime.settings import RuntimeSettings
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.use_cases.deidentifying import MIN_KEY_CHARACTERS


class TagSettings(RuntimeSettings):
    """Each field is the environment variable of its name in capitals."""

    tag_service_listen: str = "0.0.0.0:50051"

    # What is edited for HTTP callers is held until it has all come in.
    max_files_in_memory: int = Field(default=8, ge=1)
    memory_wait_seconds: float = Field(default=10, gt=0)

    # The key of de-identification for callers who bring none.
    deidentify_key: SecretStr = SecretStr("")

    max_dicom_depth: int = Field(default=100, ge=1, le=1000)
    max_dicom_header_mb: int = Field(default=64, ge=1)
    max_dicom_elements: int = Field(default=1_000_000, ge=1)
    max_inflated_mb: int = Field(default=4096, ge=1)
    max_inflation_ratio: int = Field(default=200, ge=1)

    @field_validator("deidentify_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        if key and len(key.get_secret_value()) < MIN_KEY_CHARACTERS:
            raise ValueError(f"must have at least {MIN_KEY_CHARACTERS} characters")
        return key

    @property
    def limits(self) -> Limits:
        """The limits on one file."""
        return Limits(
            depth=self.max_dicom_depth,
            header_bytes=self.max_dicom_header_mb * MIB,
            elements=self.max_dicom_elements,
            inflated_bytes=self.max_inflated_mb * MIB,
            inflation_ratio=self.max_inflation_ratio,
        )

    @property
    def max_bytes_in_memory(self) -> int:
        """What is held of the files that are edited, all together."""
        return self.max_files_in_memory * self.max_dicom_file_size_mb * MIB
