"""Comparing what Orthanc holds with what it was sent, and saying so: in the ledger, the study's log and the order.

No deletion may come between the look and the word: both are under the study's lock, in one transaction. The files of
all uploads that come to this point together share it, and the lock with it. A study of which nothing is stored yet, or
that is not as it was when its file was accepted, is locked alone, file by file; those that find it locked wait a little
for that, and go together afterwards.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from pacs_gateway.domain.ledger import Content, LedgerFile, Step
from pacs_gateway.domain.matching import expect_filed_as, expect_of_patient, is_study_of, other_patient
from pacs_gateway.domain.registry import OrderStudy, Patient
from pacs_gateway.domain.study import Counts, Fingerprint, StoredInstance
from pacs_gateway.domain.upload import FileStatus, OnConflict
from pacs_gateway.domain.upload_log import UploadLog
from pacs_gateway.use_cases.filing import Accepted, as_it_is_now, begun_log, order_of
from pacs_gateway.use_cases.grouping import Grouping
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, UnitOfWork
from service_runtime.errors import Reason, ServiceError

# A file that Orthanc takes longer to tell of holds up those beside it no longer.
_TOGETHER_SECONDS: Final = 5.0
# How long a file waits for who has its study alone, before it asks to have it alone, too: mostly the study's first
# files have it, one by one while each begins, dozens at most. If all behind them did as they do, none would ever go
# together.
_LOCKED_SECONDS: Final = 6.0
_PAUSES_SECONDS: Final = (0.01, 0.1)


class HeldError(Exception):
    """Ends the way of a file that is not to be stored, for what the PACS holds is to stay."""

    def __init__(self, status: FileStatus) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that Orthanc says it holds. `edited`: edits were asked for. `began` is when it began to come, in seconds
    of the monotonic clock.
    """

    accepted: Accepted
    entry: LedgerFile
    stored: StoredInstance
    on_conflict: OnConflict
    edited: bool
    began: float

    @property
    def study_uid(self) -> str:
        """Its study."""
        return self.entry.study_instance_uid


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A file that is stored: its entry, which is on disk, and the patient that its study is under."""

    file: LedgerFile
    patient: Patient


class _Apart(Enum):
    """Why a file is not confirmed together with others."""

    LOCKED = "another has its study alone, or is about to"
    CHANGED = "its study holds nothing yet, or is not as it was"


_Outcome = Confirmed | Exception | _Apart


class Confirming:
    """Confirms the files of all uploads."""

    def __init__(self, *, database: Database, pacs: Pacs, clock: Clock) -> None:
        self._database = database
        self._pacs = pacs
        self._clock = clock
        self._together: Grouping[Sent, _Outcome] = Grouping(self._confirm_together)

    async def confirm(self, sent: Sent) -> Confirmed:
        """Makes it last that the file is stored. Raises STORE_REFUSED, STORE_UNVERIFIED, INSTANCE_CONFLICT,
        STUDY_PATIENT_MISMATCH, ORDER_PATIENT_MISMATCH, HeldError, and what says that a part is away.
        """
        expect_filed_as(sent.accepted.tags, sent.stored)
        outcome = await self._confirm_with_others(sent)
        if isinstance(outcome, Exception):
            raise outcome
        return await self._confirm_alone(sent) if isinstance(outcome, _Apart) else outcome

    async def _confirm_with_others(self, sent: Sent) -> _Outcome:
        until, pause = time.monotonic() + _LOCKED_SECONDS, _PAUSES_SECONDS[0]
        while (outcome := await self._together.do(sent)) is _Apart.LOCKED and time.monotonic() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSES_SECONDS[1])
        return outcome

    async def _confirm_together(self, group: Sequence[Sent]) -> Sequence[_Outcome]:
        """What each file came to."""
        async with self._database.begin() as work:
            shared = await work.share_studies({sent.study_uid for sent in group})
            # Of all others it was known already when they were accepted: what holds of them now is seen below.
            begun = {sent.study_uid for sent in group if sent.accepted.known_to_ledger and sent.study_uid in shared}
            logs = await work.upload_logs.by_study(begun) if begun else {}
            # The first of a study that holds nothing yet makes it one that others can go together in.
            firsts = {sent.study_uid: sent for sent in reversed(group) if sent.study_uid in shared}
            outcomes: list[_Outcome] = [
                _Apart.CHANGED if firsts.get(sent.study_uid) is sent else _Apart.LOCKED for sent in group
            ]
            ready = [
                place
                for place, sent in enumerate(group)
                if sent.study_uid in shared
                and (not sent.accepted.known_to_ledger or _is_as_it_was(logs.get(sent.study_uid), sent))
            ]
            noted = await asyncio.gather(*(self._noted(group[place]) for place in ready))
            contents: dict[int, Content] = {}
            for place, held in zip(ready, noted, strict=True):
                if isinstance(held, ServiceError):
                    outcomes[place] = held
                elif not isinstance(held, TimeoutError):
                    try:
                        contents[place] = await _content(work, group[place], held)
                    except (ServiceError, HeldError) as error:
                        outcomes[place] = error
            counts = await self._counts_for_orders(work, [group[place] for place in contents])
            # Held last, and for as short as can be: whatever begins, or ends, in these studies waits for it.
            logs = await work.upload_logs.hold({group[place].study_uid for place in contents}) if contents else {}
            known = [place for place in contents if _is_as_it_was(logs.get(group[place].study_uid), group[place])]
            refused = await _refused_for_orders(work, {place: group[place] for place in known}, counts)
            stored = {place: group[place] for place in known if place not in refused}
            studies = self._order_studies(stored, counts)
            outcomes = [refused.get(place, outcome) for place, outcome in enumerate(outcomes)]
            steps = []
            for place, sent in stored.items():
                step = self._step(sent, logs[sent.study_uid], contents[place], studies.get(place))
                steps.append(step)
                outcomes[place] = Confirmed(step.file, sent.accepted.patient)
            if steps:
                await work.ledger.write(*steps)
                await work.commit()
        return outcomes

    async def _confirm_alone(self, sent: Sent) -> Confirmed:
        """What the patient, the order and the study were when the file was accepted may have changed meanwhile."""
        accepted, uid = sent.accepted, sent.study_uid
        async with self._database.begin() as work:
            await work.lock_study(uid)
            known = (await work.upload_logs.by_study([uid])).get(uid)
            patient = accepted.patient
            if known is None or known.patient_id != patient.id:
                patient = await as_it_is_now(work, patient)
            if known is not None and known.holds_files and not is_study_of(known, patient, accepted.tags):
                raise other_patient()
            content = await _content(work, sent, await self._pacs.fingerprint(sent.stored.orthanc_id))
            alone = {0: replace(sent, accepted=replace(accepted, patient=patient))}
            counts = await self._counts_for_orders(work, alone.values())
            log = begun_log(known, patient, accepted.original, sent.entry)
            if log != known:
                await work.upload_logs.save(log)
            await work.upload_logs.hold([uid])
            refused = await _refused_for_orders(work, alone, counts)
            if refused:
                raise refused[0]
            step = self._step(sent, log, content, self._order_studies(alone, counts).get(0))
            await work.ledger.write(step)
            await work.commit()
        return Confirmed(step.file, patient)

    async def _noted(self, sent: Sent) -> Fingerprint | ServiceError | TimeoutError | None:
        try:
            async with asyncio.timeout(_TOGETHER_SECONDS):
                return await self._pacs.fingerprint(sent.stored.orthanc_id)
        except (ServiceError, TimeoutError) as error:
            return error

    def _step(self, sent: Sent, log: UploadLog, content: Content, order_study: OrderStudy | None) -> Step:
        accepted = sent.accepted
        facts = log.facts_of(
            accepted.tags,
            orthanc_study_id=sent.stored.orthanc_study_id,
            order_id=order_of(accepted),
            edited=sent.edited or accepted.tags != accepted.original,
        )
        return Step(
            replace(sent.entry.verified(content, at=self._clock()), upload_log_id=log.id),
            facts=facts if log.with_facts(facts) != log else None,
            order_id=order_of(accepted),
            order_study=order_study,
            seconds=time.monotonic() - sent.began,
        )

    async def _counts_for_orders(self, work: UnitOfWork, files: Iterable[Sent]) -> Mapping[str, Counts]:
        """What the PACS holds of the studies of files with orders. From here on the orders are locked, so that the last
        count is the one that stays.
        """
        ordered = [(sent.accepted.order.id, sent.study_uid) for sent in files if sent.accepted.order is not None]
        for order_id in sorted({order_id for order_id, _ in ordered}):
            await work.lock_order(order_id)
        return await self._pacs.counts({study_uid for _, study_uid in ordered}) if ordered else {}

    def _order_studies(self, group: Mapping[int, Sent], counts: Mapping[str, Counts]) -> Mapping[int, OrderStudy]:
        """What each order is to say of its study, told with the last of its files."""
        last = {order_of(sent.accepted): place for place, sent in group.items() if sent.accepted.order is not None}
        return {place: self._order_study(group[place], counts) for place in last.values()}

    def _order_study(self, sent: Sent, counts: Mapping[str, Counts]) -> OrderStudy:
        tags = sent.accepted.tags
        return OrderStudy(
            study_instance_uid=tags.study_instance_uid,
            orthanc_study_id=sent.stored.orthanc_study_id,
            number_of_series=counts[tags.study_instance_uid].number_of_series,
            number_of_images=counts[tags.study_instance_uid].number_of_instances,
            study_date=tags.study_date,
            study_time=tags.study_time,
            uploaded_by_id=sent.entry.uploaded_by_id,
            uploaded_at=self._clock(),
            upload_source=sent.entry.upload_source,
        )


def _is_as_it_was(log: UploadLog | None, sent: Sent) -> bool:
    """Whether the study's log holds files of this patient."""
    return log is not None and log.holds_files and is_study_of(log, sent.accepted.patient, sent.accepted.tags)


async def _refused_for_orders(
    work: UnitOfWork, group: Mapping[int, Sent], counts: Mapping[str, Counts]
) -> Mapping[int, ServiceError]:
    """Which files may not be stored for their orders. To be asked once a log is held: from there on to the end of the
    unit of work the RIS gives no order to another patient.
    """
    orders = {sent.accepted.order.id: sent.accepted.order for sent in group.values() if sent.accepted.order is not None}
    if orders:
        orders |= await work.orders.many(orders)
    refused: dict[int, ServiceError] = {}
    for place, sent in group.items():
        if sent.accepted.order is None:
            continue
        try:
            expect_of_patient(orders[sent.accepted.order.id], sent.accepted.patient)
            if sent.study_uid not in counts:
                raise unverified()
        except ServiceError as error:
            refused[place] = error
    return refused


async def _content(work: UnitOfWork, sent: Sent, held: Fingerprint | None) -> Content:
    """What Orthanc holds, when it is what was sent, or came of the same file before."""
    if held == sent.entry.stored.fingerprint:
        return sent.entry.stored
    if not sent.stored.already_stored or held is None:
        raise unverified()
    same = sent.entry.same_as(held, await work.ledger.of_instance(sent.entry.orthanc_id))
    if same is None:
        raise HeldError(FileStatus.KEPT) if sent.on_conflict is OnConflict.KEEP else conflict()
    return same


def conflict() -> ServiceError:
    """The error for a file whose instance the PACS holds with other content."""
    return ServiceError(
        Reason.INSTANCE_CONFLICT,
        "The PACS holds an instance with this SOPInstanceUID and other content, and keeps it. Give the file a new "
        "SOPInstanceUID, or say with on_conflict which of the two is to stay.",
    )


def unverified() -> ServiceError:
    """The error for a file that is not there after it was stored."""
    return ServiceError(
        Reason.STORE_UNVERIFIED, "What Orthanc holds after storing is not what was sent. Send the file again."
    )
