"""The records of a DICOMDIR, out of its DICOM JSON (PS3.18 F.2)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pacs_gateway.domain.media import DirectoryRecord

_RECORDS: Final = "00041220"  # Directory Record Sequence
_FILE_ID: Final = "00041500"
_SOP_INSTANCE_UID: Final = "00041511"


@dataclass(slots=True)
class _DataSet:
    """What is kept of a data set while the JSON is read: of a record itself, and of those inside it."""

    file_id: str = ""
    sop_instance_uid: str = ""
    records: list["_DataSet"] = field(default_factory=list)


def directory_records(dicom_json: bytes) -> Sequence[DirectoryRecord]:
    """The records that name a file. Takes long for a large DICOMDIR: to be called by a worker thread."""
    read = json.loads(dicom_json, object_hook=_kept)
    found = read.records if isinstance(read, _DataSet) else []
    return [DirectoryRecord(record.file_id, record.sop_instance_uid) for record in found if record.file_id]


def _kept(read: dict[str, Any]) -> Any:
    """Of each object what is wanted of it, as soon as it is read: all of them together would take up much room."""
    if "vr" in read:
        return read.get("Value", [])
    return _DataSet(
        file_id="/".join(_texts(read.get(_FILE_ID))),
        sop_instance_uid="".join(_texts(read.get(_SOP_INSTANCE_UID))[:1]),
        records=[record for record in read.get(_RECORDS) or () if isinstance(record, _DataSet)],
    )


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
