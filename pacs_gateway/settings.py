"""The gateway's settings, from the environment. README.md explains them to operators."""

from pydantic import Field, SecretStr

from pacs_gateway.domain.upload import UnknownPatients
from service_runtime.settings import RuntimeSettings, Settings
from service_runtime.uploads import ArchiveLimits


class DatabaseSettings(Settings):
    """What commands on the database must be told."""

    database_url: SecretStr
    database_pool_size: int = Field(default=10, ge=2, le=100)


class GatewaySettings(DatabaseSettings, RuntimeSettings):
    """What the service must be told."""

    pacs_gateway_listen: str = "0.0.0.0:50052"

    orthanc_url: str = Field(pattern=r"^https?://[^/?#]+")
    orthanc_username: str = ""
    orthanc_password: SecretStr = SecretStr("")
    # Of each process. Orthanc's default is 50 threads, and a connection holds one of them.
    max_orthanc_connections: int = Field(default=32, ge=2, le=1000)

    tag_service_target: str = Field(min_length=1)

    # What is kept of the files under way until it is known whose they are.
    max_beginnings_in_memory_mb: int = Field(default=256, ge=1)

    # What a ZIP archive may hold, and how many times as long as packed each of it may be.
    max_zip_entries: int = Field(default=10_000, ge=1)
    max_zip_ratio: int = Field(default=200, ge=1)

    unknown_patients: UnknownPatients = UnknownPatients.CREATE
    # A gateway that gave no sign of life for so long is dead, and another looks into what it left.
    gateway_lease_seconds: float = Field(default=30, ge=1)
    reconcile_interval_seconds: float = Field(default=60, gt=0)
    compare_interval_seconds: float = Field(default=3600, gt=0)
    # How long the answer to an upload with a request id is kept.
    request_seconds: float = Field(default=86_400, gt=0)
    # How long an upload session is open, and how many files it may have. A receipt of so many as there may be, all UIDs
    # as long as they may be, is what fits into a message of 4 MiB.
    session_seconds: float = Field(default=86_400, gt=0)
    max_session_files: int = Field(default=5000, ge=1, le=5000)
    # The private key that signs receipts (PEM), and a JWKS of those that did so before. Without a key there are no
    # sessions.
    receipt_key_file: str = ""
    receipt_old_keys_file: str = ""
    receipt_issuer: str = Field(default="ris-dicom-gateway", min_length=1)
    # Where files lie that were refused for whose they are; empty: they are not kept.
    quarantine_dir: str = ""
    quarantine_max_mb: int = Field(default=10_240, ge=1)
    quarantine_days: float = Field(default=30, gt=0, le=36_500)
    # How many studies one list may look through before it asks for narrower filters.
    max_studies_listed: int = Field(default=20_000, ge=1)
    # What is kept of the pictures of studies, so that they need not be made again.
    max_thumbnails_in_memory_mb: int = Field(default=32, ge=0)

    @property
    def archive_limits(self) -> ArchiveLimits:
        """The limits on the archives of one upload request."""
        return ArchiveLimits(entries=self.max_zip_entries, ratio=self.max_zip_ratio)
