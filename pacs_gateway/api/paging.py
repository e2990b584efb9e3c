"""Page sizes and page tokens of lists (AIP-158).

A token holds the place where its page ended and a digest of the question, so that it is refused with another question.
It holds no patient data, for tokens are seen in addresses.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from datetime import datetime

from google.protobuf.message import Message

from pacs_gateway.api.fields import Fields, is_uuid
from pacs_gateway.domain.identifiers import is_uid
from pacs_gateway.domain.paging import PageRequest

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
_MAX_TOKEN = 1024


def page_request(fields: Fields, request: Message, is_place: Callable[[tuple[str, ...]], bool]) -> PageRequest:
    """The page that a list request asks for by its `limit` and `page_token`; `is_place` knows the list's places."""
    limit, token = request.limit, request.page_token  # type: ignore[attr-defined]
    if not 0 <= limit <= MAX_LIMIT:
        fields.wrong("limit", f"must be 1 to {MAX_LIMIT}")
    after = _after(token, _digest(request)) if token else ()
    if after is None or (after and not is_place(after)):
        fields.wrong("page_token", "must be the next_page_token of a page of this list with the same filters and order")
    return PageRequest(limit or DEFAULT_LIMIT, after or ())


def next_page_token(request: Message, last: tuple[str, ...]) -> str:
    """The token for the page after the one that ended with `last`, empty where that was the last."""
    if not last:
        return ""
    return base64.urlsafe_b64encode(json.dumps([_digest(request), *last]).encode()).decode().rstrip("=")


def _digest(request: Message) -> str:
    """What a question asks for, apart from the page."""
    question = type(request)()
    question.CopyFrom(request)
    question.ClearField("limit")
    question.ClearField("page_token")
    content = question.DESCRIPTOR.full_name.encode() + question.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:16]


def _after(token: str, digest: str) -> tuple[str, ...] | None:
    """The place in a token, None where it is none of ours for this question."""
    if len(token) > _MAX_TOKEN:
        return None
    try:
        content = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    match content:
        case [str(found), *rest] if found == digest and rest and all(isinstance(part, str) for part in rest):
            return tuple(rest)
    return None


def is_study_place(place: tuple[str, ...]) -> bool:
    """Whether it is a place in a list of studies: how many were before, and the last one's UID."""
    match place:
        case (position, uid):
            return position.isdecimal() and position.isascii() and len(position) < 10 and is_uid(uid)
    return False


def is_id_place(place: tuple[str, ...]) -> bool:
    """Whether it is a place in a list by id."""
    match place:
        case (entry_id,):
            return is_uuid(entry_id)
    return False


def is_log_place(place: tuple[str, ...]) -> bool:
    """Whether it is a place in the list of upload logs: the last one's time and id."""
    match place:
        case (uploaded_at, log_id):
            try:
                return datetime.fromisoformat(uploaded_at).tzinfo is not None and is_uuid(log_id)
            except ValueError:
                return False
    return False
