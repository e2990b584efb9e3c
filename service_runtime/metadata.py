"""Reading the metadata of a call."""

from collections.abc import Iterable
from typing import Any

from grpc.aio import ServicerContext

Metadata = Iterable[tuple[str, str | bytes]]


def value_of(metadata: Metadata | None, key: str) -> str:
    """The first text value of `key` (lower case), empty where there is none."""
    for name, value in metadata or ():
        if name == key and isinstance(value, str):
            return value
    return ""


def came_by_http(context: ServicerContext[Any, Any]) -> bool:
    """Whether Envoy made this call out of an HTTP request."""
    return bool(value_of(context.invocation_metadata(), "x-envoy-original-path"))
