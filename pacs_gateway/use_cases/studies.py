"""Finding the studies of the PACS, with what the RIS knows of them."""

from collections.abc import Sequence
from uuid import UUID

from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.study import Counts, PacsSeries, PacsStudy, Study, StudyFilter, StudyOrder
from pacs_gateway.use_cases.ports import Database, Pacs
from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation, not_found

NEWEST_FIRST = (StudyOrder("study_date", descending=True), StudyOrder("study_time", descending=True))
# An identifier that answers to more than one study is no identifier.
_SAME_IDENTIFIER = 2


class Studies:
    """Lists and gets studies."""

    def __init__(self, *, database: Database, pacs: Pacs, max_listed: int) -> None:
        """`max_listed` is how many studies one list may look through."""
        self._database = database
        self._pacs = pacs
        self._max_listed = max_listed

    async def page(
        self, wanted: StudyFilter, request: PageRequest, *, order: Sequence[StudyOrder] = NEWEST_FIRST
    ) -> Page[Study]:
        """A page of the studies that match, in that order. Orthanc is asked a fixed number of times, however many
        studies there are. Raises TOO_MANY_STUDIES.
        """
        for _ in range(2):
            found = await self._all(wanted, order)
            start = _start(found, request.after)
            shown = found[start : start + request.limit]
            contents = await self._pacs.contents([study.orthanc_study_id for study in shown])
            # A study that was deleted between the two questions is left out.
            now = [contents[study.orthanc_study_id] for study in shown if study.orthanc_study_id in contents]
            # One that is another than it was a moment ago may belong elsewhere by now: once more, then.
            if {study for study, _ in now} <= set(shown):
                break
        items = await self._with_ris(now)
        end = start + len(shown)
        more = end < len(found)
        return Page(items, len(found), (str(end), found[end - 1].study_instance_uid) if more else ())

    async def page_of_patient(self, patient_id: UUID, request: PageRequest) -> Page[Study]:
        """A page of the studies with the patient's MRN as PatientID, newest first. Raises PATIENT_NOT_FOUND."""
        async with self._database.begin() as work:
            patient = await work.patients.get(patient_id)
        if patient is None:
            raise not_found(Reason.PATIENT_NOT_FOUND, "patient", str(patient_id))
        return await self.page(StudyFilter(patient_id=patient.mrn), request)

    async def get(self, study_uid: str) -> Study:
        """The study with its series. Raises STUDY_NOT_FOUND, STUDY_AMBIGUOUS."""
        return await self._with_series(await only_study(self._pacs, StudyFilter(study_instance_uid=study_uid)))

    async def get_by_accession(self, accession_number: str) -> Study:
        """The study with this AccessionNumber, with its series. Raises STUDY_NOT_FOUND, STUDY_AMBIGUOUS."""
        return await self._with_series(await only_study(self._pacs, StudyFilter(accession_number=accession_number)))

    async def _all(self, wanted: StudyFilter, order: Sequence[StudyOrder]) -> Sequence[PacsStudy]:
        """Every study that matches: a list that is cut short must not pass for a whole one."""
        found = await self._pacs.find_studies(wanted, limit=self._max_listed + 1, order=order)
        if len(found) > self._max_listed:
            raise ServiceError(
                Reason.TOO_MANY_STUDIES,
                f"More than MAX_STUDIES_LISTED, {self._max_listed} studies, match. Narrow the filters.",
                metadata={"limit": "MAX_STUDIES_LISTED", "limit_studies": str(self._max_listed)},
            )
        return found

    async def _with_series(self, study: PacsStudy) -> Study:
        series = await self._pacs.series(study.orthanc_study_id)
        if series is None:  # deleted since it was found
            raise not_found(Reason.STUDY_NOT_FOUND, "study", study.study_instance_uid)
        (found,) = await self._with_ris([(study, _counts(series))], series)
        return found

    async def _with_ris(
        self, studies: Sequence[tuple[PacsStudy, Counts]], series: Sequence[PacsSeries] = ()
    ) -> tuple[Study, ...]:
        """The studies with their patients and orders: those they were uploaded for, else the patient by MRN."""
        if not studies:
            return ()
        async with self._database.begin() as work:
            links = await work.upload_logs.links([study.orthanc_study_id for study, _ in studies])
            by_id = await work.patients.many({link.patient_id for link in links.values()})
            orders = await work.orders.many({link.order_id for link in links.values() if link.order_id is not None})
            unlinked = {study.patient_id for study, _ in studies if study.orthanc_study_id not in links}
            by_mrn = await work.patients.by_mrn(unlinked - {""})
        shown = []
        for study, counts in studies:
            link = links.get(study.orthanc_study_id)
            patient = by_id.get(link.patient_id) if link else by_mrn.get(study.patient_id)
            order = orders.get(link.order_id) if link and link.order_id else None
            shown.append(
                Study(
                    pacs=study,
                    counts=counts,
                    patient_id=patient.id if patient else None,
                    patient_full_name=patient.full_name if patient else "",
                    order_id=order.id if order else None,
                    order_status=order.status if order else "",
                    series=series,
                )
            )
        return tuple(shown)


async def only_study(pacs: Pacs, wanted: StudyFilter) -> PacsStudy:
    """The study that an identifier stands for. Raises STUDY_NOT_FOUND, STUDY_AMBIGUOUS."""
    found = await pacs.find_studies(wanted, limit=_SAME_IDENTIFIER)
    if not found:
        raise not_found(Reason.STUDY_NOT_FOUND, "study", wanted.study_instance_uid or wanted.accession_number or "")
    if len(found) > 1:
        raise ServiceError(
            Reason.STUDY_AMBIGUOUS,
            "More than one study of the PACS answers to this identifier. List them, and name one that is unique.",
        )
    return found[0]


def _counts(series: Sequence[PacsSeries]) -> Counts:
    return Counts(
        modalities=tuple(sorted({one.modality for one in series} - {""})),
        number_of_series=len(series),
        number_of_instances=sum(one.number_of_instances for one in series),
    )


def _start(found: Sequence[PacsStudy], after: tuple[str, ...]) -> int:
    """Where the page after the one that ended with `after` (how many were before, and the UID of the last) begins.

    The UID holds where studies came or went meanwhile; where that study itself went, those behind it moved up into its
    place. Two studies may have one UID: then the place says which of them it was. Raises INVALID_FIELD where `after` is
    no place of this list.
    """
    match after:
        case ():
            return 0
        case (place, last_uid) if place.isascii() and place.isdecimal() and len(place) < 10:
            position = int(place)
            if 0 < position <= len(found) and found[position - 1].study_instance_uid == last_uid:
                return position
            places = (index for index, study in enumerate(found, 1) if study.study_instance_uid == last_uid)
            return next(places, max(position - 1, 0))
    raise InvalidFieldError(Violation("page_token", "must be the next_page_token of a page of this list"))
