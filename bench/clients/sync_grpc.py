"""Calls of TagService by a client with threads, which unlike one on grpc.aio sees an answer while it still sends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.api import httpbody_pb2

from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2

PIECE_BYTES = 256 * 1024
LARGE_FILES = {"MAX_DICOM_FILE_SIZE_MB": "1024"}


def token_of(stack: Stack) -> tuple[tuple[str, str], ...]:
    """The metadata that a call carries."""
    return (("authorization", f"Bearer {stack.token()}"),)


def channel_to(target: str) -> grpc.Channel:
    """A connection of its own, for answers of any size."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    return grpc.insecure_channel(target, options=options)


def pieces_of(path: Path) -> Iterator[httpbody_pb2.HttpBody]:
    """The file, in pieces of PIECE_BYTES."""
    with path.open("rb") as file:
        while data := file.read(PIECE_BYTES):
            yield httpbody_pb2.HttpBody(data=data)


def to_read(path: Path) -> Iterator[Any]:
    """The messages of ReadTags."""
    return (tag_service_pb2.ReadTagsRequest(file=piece) for piece in pieces_of(path))


def to_modify(path: Path, patient_id: str) -> Iterator[Any]:
    """The messages of ModifyTags that give the file to another patient."""
    for piece in pieces_of(path):
        yield tag_service_pb2.ModifyTagsRequest(file=piece, dicom_patient_id=patient_id)
        patient_id = ""
