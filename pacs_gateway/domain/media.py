"""Media such as CDs: whether the DICOMDIR of one (PS3.3 F, PS3.10 8.6) says what files are there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DIRECTORY_NAME = "DICOMDIR"
# More than this of each kind is only counted.
MOST_NAMED = 100
_MOST_SHOWN = 255


@dataclass(frozen=True, slots=True)
class DirectoryRecord:
    """A file that a DICOMDIR names: ReferencedFileID (0004,1500) with / between its parts, and
    ReferencedSOPInstanceUIDInFile (0004,1511).
    """

    file_id: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A DICOM file of an archive: its path there, and its SOP instance, "" where that is not known."""

    path: str
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class DirectoryReport:
    """Where a DICOMDIR and the files differ, by path: named and not there, there and not named, and holding another SOP
    instance than it says.
    """

    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    other_instances: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def agrees(self) -> bool:
        """Whether they do not."""
        return not (self.missing or self.unlisted or self.other_instances)


def is_directory(path: str) -> bool:
    """Whether the file of an archive with this path is to be a DICOMDIR."""
    return _key(path).rpartition("/")[2] == DIRECTORY_NAME


def compare(path: str, records: Sequence[DirectoryRecord], files: Iterable[MediaFile]) -> DirectoryReport:
    """What the DICOMDIR with this path says, held against the DICOM files of the archive. Its own folder is where the
    medium begins: files beside it are none of its.
    """
    root = _key(path).rpartition("/")[0]
    keyed = ((_key(file.path), file) for file in files)
    there = {key: file for key, file in keyed if not root or key.startswith(f"{root}/")}
    named = {_key(f"{root}/{record.file_id}" if root else record.file_id): record for record in records}
    missing = [record.file_id for key, record in named.items() if key not in there]
    unlisted = [file.path for key, file in there.items() if key not in named]
    other = [
        file.path
        for key, file in there.items()
        if key in named
        and file.sop_instance_uid
        and named[key].sop_instance_uid
        and file.sop_instance_uid != named[key].sop_instance_uid
    ]
    return DirectoryReport(
        missing=_shown(missing),
        unlisted=_shown(unlisted),
        other_instances=_shown(other),
        left_out=sum(max(0, len(names) - MOST_NAMED) for names in (missing, unlisted, other)),
    )


def _key(path: str) -> str:
    """What tells a path: programs that copy CDs change the case, and leave a version (;1) or the dot of a name without
    extension (ISO 9660 7.5).
    """
    return path.upper().partition(";")[0].removesuffix(".")


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    """The first names, as they can be told."""
    return tuple("".join(filter(str.isprintable, name))[:_MOST_SHOWN] for name in names[:MOST_NAMED])
