"""The action of each attribute under given options: PS3.15 table E.1-1 with its option columns, and what it leaves
open.

Where the table gives alternatives (X/Z, X/D...), the right one depends on the attribute's type in the IOD. Here it is
the one that suits every type: a dummy before an empty value before none.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from tag_service.domain.deidentify import retention
from tag_service.domain.deidentify.options import Dates, Options
from tag_service.domain.deidentify.table import basic_actions

PATIENT_ID: Final = 0x00100020
PATIENT_NAME: Final = 0x00100010


class Action(Enum):
    """What is done to an attribute."""

    KEEP = "KEEP"
    REMOVE = "REMOVE"
    EMPTY = "EMPTY"
    DUMMY = "DUMMY"  # a value that says nothing
    UID = "UID"  # another UID
    PATIENT = "PATIENT"  # the patient's pseudonym
    SHIFT = "SHIFT"  # a date some days earlier
    CLEAN = "CLEAN"  # the words that name nobody, maybe none
    CLEAN_OR_DUMMY = "CLEAN_OR_DUMMY"  # the same, and a dummy where there are none


_OF_TABLE: Final = {
    "X": Action.REMOVE,
    "Z": Action.EMPTY,
    "X/Z": Action.EMPTY,
    "D": Action.DUMMY,
    "X/D": Action.DUMMY,
    "Z/D": Action.DUMMY,
    "X/Z/D": Action.DUMMY,
    "U": Action.UID,
    # The items stay, and the UIDs in them are replaced.
    "X/Z/U*": Action.UID,
}

# UIDs of instances, frames of reference, places and the like that the table does not list. Left as they are they would
# point at what was before, and out of what is de-identified.
_FURTHER_UIDS: Final = frozenset(
    {
        0x00081167,  # MultiFrameSourceSOPInstanceUID
        0x00083012,  # RadiopharmaceuticalAdministrationEventUID
        0x0018991E,  # TargetFrameOfReferenceUID
        0x00200242,  # SOPInstanceUIDOfConcatenationSource
        0x00209312,  # VolumeFrameOfReferenceUID
        0x00209313,  # TableFrameOfReferenceUID
        0x00280304,  # ReferencedColorPaletteInstanceUID
        0x0040A021,  # FindingsGroupUIDTrial
        0x0040A022,  # ReferencedFindingsGroupUIDTrial
        0x0040E011,  # RetrieveLocationUID
        0x0040E030,  # RepositoryUniqueID
        0x0040E031,  # HomeCommunityID
        0x00440102,  # AssertionUID
        0x00440108,  # ReferencedAssertionUID
        0x00687004,  # ModelGroupUID
        0x0070031B,  # ReferencedFiducialUID
        0x00701209,  # VolumetricPresentationInputSetUID
        0x0072007F,  # SelectorUIValue
        0x300A0675,  # EquipmentFrameOfReferenceUID
        0x3010001F,  # SegmentationTemplateUID
    }
)
# What names a patient, an order, a person or whoever issued an identifier, and the originals of a file that was
# de-identified before for somebody who holds their key.
_FURTHER_IDENTIFIERS: Final = frozenset(
    {
        0x00080051,  # IssuerOfAccessionNumberSequence
        0x00100024,  # IssuerOfPatientIDQualifiersSequence
        0x00100033,  # PatientBirthDateInAlternativeCalendar
        0x00100034,  # PatientDeathDateInAlternativeCalendar
        0x00100035,  # PatientAlternativeCalendar
        0x00102295,  # BreedRegistrationNumber
        0x00321031,  # RequestingPhysicianIdentificationSequence
        0x00400026,  # OrderPlacerIdentifierSequence
        0x00400027,  # OrderFillerIdentifierSequence
        0x00400036,  # AssigningFacilitySequence
        0x00401006,  # PlacerOrderNumberProcedure
        0x00401007,  # FillerOrderNumberProcedure
        0x00402006,  # PlacerOrderNumberImagingServiceRequestRetired
        0x00402007,  # FillerOrderNumberImagingServiceRequestRetired
        0x0074100A,  # ContactURI
        0x0074100C,  # ContactDisplayName
        0x04000500,  # EncryptedAttributesSequence
    }
)
# Where originals are to be had, which nearly always has their UIDs in it. The IOD may demand a value.
_LOCATIONS: Final = frozenset(
    {
        0x00080407,  # StoredInstanceBaseURI
        0x00080408,  # FolderAccessURI
        0x00080409,  # FileAccessURI
        0x00081190,  # RetrieveURL
        0x00287FE0,  # PixelDataProviderURL
        0x00404073,  # StorageURL
        0x0040A992,  # UniformResourceLocatorTrial
        0x0040E001,  # HL7InstanceIdentifier
        0x0040E010,  # RetrieveURI
    }
)
# Free text that people write, and that the table does not list.
_FURTHER_TEXTS: Final = frozenset(
    {
        0x00080402,  # InventoryInstanceDescription
        0x0018003A,  # InterventionDescription
        0x00189901,  # ReferenceLocationDescription
        0x0018990F,  # ProtocolPlanningInformation
        0x0018991A,  # InstructionPerformanceComment
        0x0022112C,  # CalculationComment
        0x00240044,  # CommentsOnPatientPerformanceOfVisualField
        0x00281351,  # PartialViewDescription
        0x00286190,  # MaskOperationExplanation
        0x00400255,  # PerformedProcedureTypeDescription
        0x00400400,  # CommentsOnTheScheduledProcedureStep
        0x00400553,  # SpecimenDescriptionTrial
        0x00401060,  # RequestedProcedureDescriptionTrial
        0x0040A160,  # TextValue
        0x0040A33A,  # ReportStatusCommentTrial
        0x00420010,  # DocumentTitle
        0x00440011,  # SubstanceAdministrationNotes
        0x00440106,  # AssertionComments
        0x00620006,  # SegmentDescription
        0x00660004,  # SurfaceComments
        0x00660107,  # TrackSetDescription
        0x00700081,  # ContentDescription
        0x00741006,  # ProcedureStepProgressDescription
        0x00741238,  # ReasonForCancellation
        0x00820003,  # AssessmentSummaryDescription
        0x0082000A,  # ObservationDescription
        0x01000424,  # SOPAuthorizationComment
        0x30020004,  # RTImageDescription
        0x30040006,  # DoseComment
        0x30080012,  # MeasuredDoseDescription
        0x30080066,  # OverrideReason
        0x30080202,  # TreatmentStatusComment
        0x300A0402,  # SetupImageComment
        0x300A0730,  # TreatmentTerminationDescription
    }
)
# The text of a graphic annotation, which is reached only where the annotations are cleaned.
_UNFORMATTED_TEXT_VALUE: Final = 0x00700006
# The value of a content item (PS3.3 C.17.3): by the concept that names it, which may be a birth date, it follows no
# option (PS3.15 table E.3.4-1).
_CONTENT_ITEM_DATES: Final = frozenset({0x0040A120, 0x0040A121})
# File meta information that names who sent the file, and what a private creator put there (PS3.10 7.1).
_SENDERS: Final = frozenset(
    {0x00020016, 0x00020017, 0x00020018, 0x00020026, 0x00020027, 0x00020028, 0x00020100, 0x00020102}
)


@lru_cache(maxsize=64)
def actions_of(options: Options) -> Mapping[int, Action]:
    """The action of each attribute that the table or this module lists, by tag."""
    found = {tag: _OF_TABLE[action] for tag, action in basic_actions().items()}
    found |= dict.fromkeys(_FURTHER_UIDS, Action.UID)
    found |= dict.fromkeys(_FURTHER_TEXTS, Action.CLEAN_OR_DUMMY)
    found |= dict.fromkeys(_FURTHER_IDENTIFIERS | _SENDERS, Action.REMOVE)
    found |= dict.fromkeys(_LOCATIONS, Action.DUMMY)
    # The table lets both be emptied; a pseudonym keeps the files of one patient together.
    found[PATIENT_ID] = found[PATIENT_NAME] = Action.PATIENT

    def clean(tags: Iterable[int]) -> None:
        for tag in tags:
            needs_value = found[tag] is Action.DUMMY
            found[tag] = Action.CLEAN_OR_DUMMY if needs_value else Action.CLEAN

    if options.clean_descriptors:
        clean(retention.DESCRIPTORS)
    if options.clean_structured_content:
        clean(retention.STRUCTURED_CONTENT)
    if options.clean_graphics:
        clean({*retention.GRAPHICS, _UNFORMATTED_TEXT_VALUE})
    if options.retain_patient_characteristics:
        clean(retention.PATIENT_CHARACTERISTICS_CLEANED)
    found |= dict.fromkeys(_retained(options), Action.KEEP)
    # A date that stays beside others that are shifted tells by how much.
    if options.dates is not Dates.REMOVE:
        dates = retention.DATES - _CONTENT_ITEM_DATES
        found |= dict.fromkeys(dates, Action.KEEP if options.dates is Dates.KEEP else Action.SHIFT)
    return MappingProxyType(found)


def _retained(options: Options) -> frozenset[int]:
    """What the options other than that of dates retain."""
    retained: frozenset[int] = frozenset()
    if options.retain_uids:
        listed = frozenset(tag for tag, action in basic_actions().items() if action == "U")
        retained |= (listed - retention.UIDS_NEVER_RETAINED) | retention.UID_REFERENCES | _FURTHER_UIDS
    if options.retain_device_identity:
        retained |= retention.DEVICE_IDENTITY
    if options.retain_institution_identity:
        retained |= retention.INSTITUTION_IDENTITY
    if options.retain_patient_characteristics:
        retained |= retention.PATIENT_CHARACTERISTICS
    return retained
