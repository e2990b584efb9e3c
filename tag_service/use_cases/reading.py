"""Reading and checking a file while it arrives. Nothing of it is kept but the answer."""

from collections.abc import AsyncIterable
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.dicom_json import JsonWriter
from tag_service.domain.dicom_tags import Header
from tag_service.domain.limits import MIB, Limits
from tag_service.domain.reading import HeaderReader
from tag_service.domain.validation import Validator, Verdict
from tag_service.use_cases.feeding import INLINE_BYTES, feed, in_worker, opened

# Envoy takes an answer of 32 MiB, and its framing.
_ANSWER_BYTES: Final = 32 * MIB - 1024


async def read_tags(chunks: AsyncIterable[bytes], limits: Limits) -> Header:
    """The attributes of the header; asks for no chunk more than that takes.

    Raises EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, MALFORMED_DICOM, STRUCTURE_LIMIT, and what `chunks` raises.
    """
    reader = HeaderReader(limits)
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            # The header of most files ends early in the first chunk: no worker is needed for those.
            if reader.feed(chunk[:INLINE_BYTES]) or await feed(reader.feed, chunk[INLINE_BYTES:]):
                return reader.header()
    reader.close()
    return reader.header()


async def read_all_tags(chunks: AsyncIterable[bytes], limits: Limits) -> bytes:
    """Every attribute as the DICOM JSON model, in UTF-8. Raises as `read_tags`, STRUCTURE_LIMIT also where the answer
    would be larger than one may be.
    """
    writer = JsonWriter(limits)
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            await feed(writer.feed, chunk)

    def finish() -> bytes:
        writer.close()
        data = writer.text().encode("utf-8")
        if len(data) > _ANSWER_BYTES:
            raise ServiceError(
                Reason.STRUCTURE_LIMIT,
                f"All attributes of the file make more than {_ANSWER_BYTES} bytes of JSON. Read the 20 of ReadTags.",
                metadata={"limit": "answer bytes", "limit_bytes": str(_ANSWER_BYTES)},
            )
        return data

    return await in_worker(finish)


async def validate(chunks: AsyncIterable[bytes], limits: Limits) -> Verdict:
    """What the file is and what is wrong with it. Raises only what `chunks` raises."""
    validator = Validator(limits)
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            await feed(validator.feed, chunk)
    await in_worker(validator.close)
    return validator.verdict()
