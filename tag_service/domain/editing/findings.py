"""What turns out to be wrong with edits once the file is seen."""

from service_runtime.errors import InvalidFieldError, ServiceError, Violation
from tag_service.domain.editing.edits import Edit
from tag_service.domain.editing.plan import Node


class Findings:
    """While the header is written, all that is wrong is collected, so that it can be told at once; behind it, the first
    thing wrong is raised.
    """

    def __init__(self) -> None:
        self.is_header = True
        self._violations: dict[Violation, None] = {}
        # The items that all were found wrong in, and how: a file may give the same cause any number of times.
        self._told: set[tuple[object, ...]] = set()
        self._conflict: ServiceError | None = None

    def violate(self, edit: Edit, problem: str) -> None:
        """Notes what is wrong with an edit. Raises INVALID_FIELD behind the header."""
        violation = Violation(edit.field, problem)
        if not self.is_header:
            raise InvalidFieldError(violation)
        self._violations[violation] = None

    def violate_all(self, items: dict[int, Node], problem: str) -> None:
        """The same for every edit that sets a value in these items."""
        told = (problem, *items.values())
        if told in self._told:
            return
        self._told.add(told)
        for item in items.values():
            for edit in item.edits_below():
                if edit.value is not None:
                    self.violate(edit, problem)

    def conflict(self, error: ServiceError) -> None:
        """Notes text that cannot be carried over. Raises CHARSET_CONFLICT behind the header."""
        if not self.is_header:
            raise error
        self._conflict = self._conflict or error

    def end_header(self) -> None:
        """Raises INVALID_FIELD with all violations, else CHARSET_CONFLICT, where there are any."""
        self.is_header = False
        if self._violations:
            raise InvalidFieldError(*self._violations)
        if self._conflict is not None:
            raise self._conflict
