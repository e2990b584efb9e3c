"""Reading and checking a file while it arrives. Nothing of it is kept but the answer."""

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.reading.chosen import Choice, ChosenAttribute
from tag_service.domain.reading.chosen_reading import ChosenReader
from tag_service.domain.reading.dicom_json import ANSWER_BYTES, JsonWriter
from tag_service.domain.reading.dicom_tags import Header
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import Limits
from tag_service.domain.validating.validation import Validator, Verdict
from tag_service.use_cases.feeding import INLINE_BYTES, Chunks, feed, in_worker, opened, parts_of


async def read_tags(chunks: Chunks[bytes], limits: Limits) -> Header:
    """The attributes of the header; asks for no chunk more than that takes.

    Raises EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, MALFORMED_DICOM, STRUCTURE_LIMIT, and what `chunks` raises.
    """
    reader = HeaderReader(limits)
    await _read_beginning(reader, chunks)
    return reader.header()


async def read_chosen_tags(
    chunks: Chunks[bytes], choice: Choice, limits: Limits
) -> tuple[Header, tuple[ChosenAttribute, ...]]:
    """The same, and the attributes that were chosen. Raises as `read_tags`, STRUCTURE_LIMIT also where they would make
    too large an answer.
    """
    reader = ChosenReader(choice, limits)
    await _read_beginning(reader, chunks)
    header, attributes = await in_worker(reader.answer)
    # UTF-8 takes at most three bytes for what JSON and Python count as one.
    if sum(len(attribute.value) for attribute in attributes) > ANSWER_BYTES // 3:
        raise _too_large("The chosen attributes", "Choose fewer.")
    return header, attributes


async def _read_beginning(reader: HeaderReader | ChosenReader, chunks: Chunks[bytes]) -> None:
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            # The header of most files ends early in the first chunk: no worker is needed for those.
            if reader.feed(chunk[:INLINE_BYTES]):
                return
            for part in parts_of(chunk[INLINE_BYTES:], reader):
                if await feed(reader, part):
                    return
    reader.close()


async def read_all_tags(chunks: Chunks[bytes], limits: Limits) -> bytes:
    """Every attribute as the DICOM JSON model, in UTF-8. Raises as `read_tags`, STRUCTURE_LIMIT also where the answer
    would be larger than one may be.
    """
    writer = JsonWriter(limits)
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            for part in parts_of(chunk, writer):
                await feed(writer, part)

    def finish() -> bytes:
        writer.close()
        return writer.data()

    return await in_worker(finish)


def _too_large(what: str, advice: str) -> ServiceError:
    return ServiceError(
        Reason.STRUCTURE_LIMIT,
        f"{what} would make an answer of more than {ANSWER_BYTES} bytes. {advice}",
        metadata={"limit": "answer bytes", "limit_bytes": str(ANSWER_BYTES)},
    )


async def validate(chunks: Chunks[bytes], limits: Limits) -> Verdict:
    """What the file is and what is wrong with it. Raises only what `chunks` raises."""
    validator = Validator(limits)
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            for part in parts_of(chunk, validator):
                await feed(validator, part)
    await in_worker(validator.close)
    return validator.verdict()
