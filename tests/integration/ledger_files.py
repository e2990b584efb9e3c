"""Entries of the ledger for tests."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pacs_gateway.domain.ledger import Content, LedgerFile
from pacs_gateway.domain.upload_log import UploadLog

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def content_of(data: bytes) -> Content:
    """What identifies these bytes."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Content(len(data), hashlib.sha256(data).hexdigest(), md5)


def file_of(log: UploadLog, number: int, **changed: Any) -> LedgerFile:
    """The entry of the numbered instance of a study, of which all has come."""
    uid = f"{log.study_instance_uid}.{number}"
    data = b"x" * (number + 1)
    values = {
        "id": uuid4(),
        "upload_id": uuid4(),
        "upload_log_id": log.id,
        "uploaded_by_id": log.uploaded_by_id,
        "upload_source": "manual",
        "study_instance_uid": log.study_instance_uid,
        "series_instance_uid": "1.9",
        "sop_instance_uid": uid,
        "orthanc_id": f"o-{uid}",
        "filename": f"{number}.dcm",
        "edits_sha256": "",
        "received_at": NOW + timedelta(seconds=number),
        "source": Content(len(data), hashlib.sha256(data).hexdigest()),
        "stored": content_of(data),
    }
    return LedgerFile(**values | changed)


def verified(file: LedgerFile) -> LedgerFile:
    """The entry once the file is stored."""
    return file.verified(file.stored, at=NOW)


def failed(file: LedgerFile, reason: str = "STORE_REFUSED") -> LedgerFile:
    """The entry once the file failed."""
    return file.failed(reason, at=NOW)
