"""Page sizes and page tokens of lists (AIP-158).

A token holds the place where its page ended and a digest of the question, so that it is refused with another question.
It holds no patient data, for tokens are seen in addresses.
"""

import base64
import binascii
import hashlib
import json

from google.protobuf.message import Message

from pacs_gateway.api.fields import Fields
from pacs_gateway.domain.paging import PageRequest

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
_MAX_TOKEN = 1024


def page_request(fields: Fields, request: Message) -> PageRequest:
    """The page that a list request asks for by its `limit` and `page_token`.

    Whether the place in the token is one of the list is for the list to say, which alone knows its places.
    """
    limit, token = request.limit, request.page_token  # type: ignore[attr-defined]
    if not 0 <= limit <= MAX_LIMIT:
        fields.wrong("limit", f"must be 1 to {MAX_LIMIT}")
    after = _after(token, _digest(request)) if token else ()
    if after is None:
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
