"""Editing files: the rewriter for what a caller asks for."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import Rewriter, rewriter_of
from tag_service.domain.parsing.tokens import Event
from tag_service.domain.standard.limits import Limits

# What stands in a file as the system that edited it.
_SYSTEM: Final = "RIS_DICOM_GW"


def _now() -> datetime:
    return datetime.now(UTC)


class Modifying:
    """Edits files, within limits, at the time that the clock tells."""

    def __init__(self, limits: Limits, *, clock: Callable[[], datetime] = _now) -> None:
        self._limits = limits
        self._clock = clock

    def begin(self, edits: Edits, *, watch: Callable[[Event], object] | None = None) -> Rewriter:
        """The rewriter for one file. Raises INVALID_FIELD and EDIT_REFUSED for edits that are wrong without one.
        `watch` is called with the events of the header as it came.
        """
        return rewriter_of(edits, self._limits, at=self._clock(), system=_SYSTEM, watch=watch)
