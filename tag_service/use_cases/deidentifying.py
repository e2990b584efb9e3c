"""De-identifying files: the rewriter for the options and the key, and what it leaves undone."""

import secrets
from enum import StrEnum
from typing import Final

from service_runtime.errors import InvalidFieldError, Violation
from tag_service.domain.deidentify.actions import actions_of
from tag_service.domain.deidentify.options import Options
from tag_service.domain.deidentify.profile import Profile
from tag_service.domain.deidentify.reach import TAGS, Reach, reach_of
from tag_service.domain.editing.rewrite import Rewriter
from tag_service.domain.standard.limits import Limits

# With a shorter key somebody who knows a UID and its replacement could try keys until one fits.
MIN_KEY_CHARACTERS: Final = 32
MAX_KEY_CHARACTERS: Final = 1024
KEY_FIELD: Final = "x-deidentify-key"


class KeySource(StrEnum):
    """Whose key a file is de-identified under."""

    REQUEST = "request"
    SETTING = "setting"
    CALL = "call"  # made for the call alone, and forgotten with it


class Deidentification:
    """One file under way."""

    def __init__(self, options: Options, key: bytes, key_source: KeySource, limits: Limits) -> None:
        self.key_source = key_source
        self.rewriter = Rewriter((), limits, treatment=Profile(options, key), noted=frozenset(TAGS))

    def reach(self) -> Reach:
        """What is out of reach, known as soon as the rewriter gives its first piece."""
        header = {tag: self.rewriter.text_before(tag, vr) for tag, vr in TAGS.items()}
        return reach_of(header, has_pixels=self.rewriter.may_have_pixels)


class Deidentifying:
    """De-identifies files, within limits; `key` is the service's own, "" for none."""

    def __init__(self, limits: Limits, *, key: str) -> None:
        # The tables are read from a file, which no call should wait for, or find missing.
        actions_of(Options())
        self._limits = limits
        self._key = key

    def begin(self, options: Options, key: str) -> Deidentification:
        """Begins with one file; `key` is the caller's, "" for none. Raises INVALID_FIELD for a key that is no good."""
        if key:
            if not MIN_KEY_CHARACTERS <= len(key) <= MAX_KEY_CHARACTERS:
                problem = f"has not {MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} characters"
                raise InvalidFieldError(Violation(KEY_FIELD, problem))
            return Deidentification(options, key.encode("utf-8"), KeySource.REQUEST, self._limits)
        if self._key:
            return Deidentification(options, self._key.encode("utf-8"), KeySource.SETTING, self._limits)
        return Deidentification(options, secrets.token_bytes(32), KeySource.CALL, self._limits)
