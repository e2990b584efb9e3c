"""What becomes of each element under the basic profile of PS3.15 annex E and its options, without any file."""

import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.deidentify import retention, safe
from tag_service.domain.deidentify.options import Dates, Options, methods
from tag_service.domain.deidentify.profile import _DUMMIES, Profile
from tag_service.domain.deidentify.table import basic_actions
from tag_service.domain.editing.treatment import Fate, Identity
from tag_service.domain.standard import dictionary, values
from tag_service.domain.standard.vr import VRS

KEY = b"one key of more than thirty-two bytes"
OTHER_KEY = b"another key of more than thirty-two bytes"
COMMON = ["PatientName", "AccessionNumber", "ReferringPhysicianName", "StudyDate", "SOPInstanceUID"]


def profile(*, key=KEY, patient_id="MRN7", **options):
    """A profile that has begun on a patient's file."""
    begun = Profile(Options(**options), key)
    begun.begin(Identity(patient_id=patient_id))
    return begun


def fate(keyword, **options):
    """The fate of a standard attribute of the VR that the dictionary gives."""
    tag = tag_for_keyword(keyword)
    return profile(**options).fate(tag, dictionary.implicit_vr(tag), "")


def replaced(keyword, text, vr="", **options):
    """The value in place of one of a standard attribute."""
    tag = tag_for_keyword(keyword)
    return profile(**options).replacement(tag, vr or dictionary.implicit_vr(tag), text)


def test_the_table_is_the_whole_one():
    """The basic profile has a row for every attribute that names a patient, an order or an instance, and actions only
    that the standard knows.
    """
    actions = basic_actions()
    assert len(actions) > 600
    assert set(actions.values()) == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    assert {actions[tag_for_keyword(keyword)] for keyword in COMMON} == {"Z", "U"}


def test_every_row_of_an_option_is_a_row_of_the_table():
    """No option names an attribute that the basic profile does not have, and UIDs are retained as the column says."""
    rows = set(basic_actions())
    for tags in (
        retention.UID_REFERENCES,
        retention.UIDS_NEVER_RETAINED,
        retention.DEVICE_IDENTITY,
        retention.INSTITUTION_IDENTITY,
        retention.PATIENT_CHARACTERISTICS,
        retention.PATIENT_CHARACTERISTICS_CLEANED,
        retention.DATES,
        retention.DESCRIPTORS,
        retention.STRUCTURED_CONTENT,
        retention.GRAPHICS,
    ):
        assert tags <= rows


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("PatientName", Fate.REPLACE),
        ("PatientID", Fate.REPLACE),
        ("PatientBirthDate", Fate.EMPTY),
        ("PatientSex", Fate.EMPTY),
        ("OtherPatientIDs", Fate.REMOVE),
        ("AccessionNumber", Fate.EMPTY),
        ("StudyDate", Fate.EMPTY),
        ("ContentDate", Fate.REPLACE),
        ("StudyDescription", Fate.REMOVE),
        ("SOPInstanceUID", Fate.REPLACE),
        ("SOPClassUID", Fate.KEEP),
        ("CodingSchemeUID", Fate.KEEP),
        ("ReferencedImageSequence", Fate.REPLACE),
        ("RequestAttributesSequence", Fate.REMOVE),
        ("ContentSequence", Fate.EMPTY),
        ("EncapsulatedDocument", Fate.EMPTY),
        ("IconImageSequence", Fate.REMOVE),
        ("DigitalSignaturesSequence", Fate.REMOVE),
        ("OriginalAttributesSequence", Fate.REMOVE),
        ("DataSetTrailingPadding", Fate.REMOVE),
        ("Modality", Fate.KEEP),
        ("Rows", Fate.KEEP),
        ("PixelData", Fate.KEEP),
        ("BurnedInAnnotation", Fate.KEEP),
        # Of the file meta information what the sender put there.
        ("SourceApplicationEntityTitle", Fate.REMOVE),
        ("PrivateInformation", Fate.REMOVE),
        ("TransferSyntaxUID", Fate.KEEP),
        ("MediaStorageSOPInstanceUID", Fate.REPLACE),
    ],
)
def test_the_basic_profile(keyword, expected):
    """De-identification: each attribute has the fate of its action in PS3.15 table E.1-1."""
    assert fate(keyword) is expected


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x50000010, "US"),
        (0x50023000, "OW"),
        (0x60003000, "OW"),
        (0x60004000, "LT"),
        (0x60021500, "LO"),
        (0x00000002, "UI"),
        (0x0008FFF0, "LO"),
        (0x00100011, "SQ"),
    ],
)
def test_curves_overlays_commands_and_what_nobody_knows_are_removed(tag, vr):
    """De-identification: repeating groups go in all their instances, and so does what no dictionary knows, whatever the
    options.
    """
    assert profile().fate(tag, vr, "") is Fate.REMOVE
    everything = profile(clean_graphics=True, clean_descriptors=True, retain_safe_private=True)
    assert everything.fate(tag, vr, "") is Fate.REMOVE


@pytest.mark.parametrize(
    ("keyword", "vr", "expected"),
    [
        ("Rows", "PN", Fate.EMPTY),
        ("EvaluatorName", "PN", Fate.EMPTY),
        ("ExpiryDate", "DA", Fate.EMPTY),
        ("Modality", "DA", Fate.EMPTY),
        ("StudyInstanceUID", "UN", Fate.REPLACE),
        ("AnatomicRegionSequence", "OB", Fate.EMPTY),
        ("PatientID", "OB", Fate.EMPTY),
        ("PatientName", "SQ", Fate.EMPTY),
        ("OperatorsName", "UN", Fate.REPLACE),
    ],
)
def test_names_and_dates_go_wherever_they_stand(keyword, vr, expected):
    """De-identification: what the table passes over does not stay as a name or a date, and what cannot be replaced in
    its VR is emptied.
    """
    assert profile().fate(tag_for_keyword(keyword), vr, "") is expected


@pytest.mark.parametrize(
    ("option", "keywords"),
    [
        ("retain_uids", ["SOPInstanceUID", "FrameOfReferenceUID", "DeviceUID", "AffectedSOPInstanceUID"]),
        ("retain_device_identity", ["StationName", "DeviceSerialNumber", "DeviceUID", "DateOfLastCalibration"]),
        ("retain_institution_identity", ["InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName"]),
        (
            "retain_patient_characteristics",
            ["PatientSex", "PatientAge", "PatientSize", "PatientWeight", "SmokingStatus"],
        ),
    ],
)
def test_what_an_option_retains(option, keywords):
    """De-identification: an option keeps the attributes of its column, and they do not stay without it."""
    assert {fate(keyword) for keyword in keywords} & {Fate.KEEP} == set()
    assert {fate(keyword, **{option: True}) for keyword in keywords} == {Fate.KEEP}


def test_the_options_leave_the_identity_out():
    """De-identification: with every option there is, name, number, birth date, order and physicians go."""
    everything = {name: True for name in Options.__slots__ if name != "dates"} | {"dates": Dates.KEEP}
    gone = """
        PatientName PatientID PatientBirthDate PatientBirthTime OtherPatientIDs PatientAddress AccessionNumber StudyID
        ReferringPhysicianName OperatorsName PerformingPhysicianName RequestingPhysician IssuerOfPatientID
        PatientTelephoneNumbers MilitaryRank AdmissionID EncapsulatedDocument OriginalAttributesSequence UID
        DigitalSignatureUID RetrieveAETitle ScheduledStationAETitle
    """
    assert [keyword for keyword in gone.split() if fate(keyword, **everything) is Fate.KEEP] == []


def test_dates_are_kept_or_shifted_as_asked():
    """De-identification: full dates stay, modified ones become others of the same VR, times of day stay with both."""
    assert fate("StudyDate", dates=Dates.KEEP) is Fate.KEEP
    assert fate("StudyDate", dates=Dates.SHIFT) is Fate.REPLACE
    assert fate("AcquisitionDateTime", dates=Dates.SHIFT) is Fate.REPLACE
    assert fate("ExpiryDate", dates=Dates.SHIFT) is Fate.REPLACE
    assert fate("StudyTime", dates=Dates.SHIFT) is Fate.KEEP
    assert fate("TimezoneOffsetFromUTC", dates=Dates.SHIFT) is Fate.KEEP
    assert fate("PatientBirthDate", dates=Dates.SHIFT) is Fate.EMPTY
    # A date that is not shifted beside others that are would tell by how much.
    assert fate("DateOfLastCalibration", dates=Dates.SHIFT, retain_device_identity=True) is Fate.REPLACE
    # Not what another VR smuggles in.
    assert profile(dates=Dates.SHIFT).fate(tag_for_keyword("StudyDate"), "SH", "") is Fate.EMPTY


def days_between(before, after):
    """The days from one DA value to another."""
    return (datetime.strptime(after, "%Y%m%d") - datetime.strptime(before, "%Y%m%d")).days  # noqa: DTZ007


def test_a_patients_dates_move_together():
    """De-identification: all dates of a patient are shifted by the same days into the past under one key, and another
    patient's, or another key's, by others.
    """

    def shift(text="20200301", **options):
        return days_between(text, replaced("StudyDate", text, dates=Dates.SHIFT, **options))

    assert shift() == shift("19991231") == shift(patient_id="MRN7")
    assert -3653 <= shift() < 0
    assert len({shift(), shift(patient_id="MRN8"), shift(key=OTHER_KEY)}) == 3


@pytest.mark.parametrize(
    ("vr", "text", "pattern"),
    [
        ("DA", "20200229", r"20\d{6}"),
        ("DA", "2020.02.29", r"20\d{6}"),
        ("DA", "20200229\\20200301", r"20\d{6}\\20\d{6}"),
        ("DA", "", ""),
        ("DA", "yesterday", ""),
        ("DA", "20209999", ""),
        ("DA", "00010101", ""),
        ("DT", "20200229123456.789+0100", r"20\d{6}123456\.789\+0100"),
        ("DT", "2020", r"20\d\d"),
        ("DT", "202002", r"20\d{4}"),
        ("DT", "Doe", ""),
        ("DT", "20200229 Doe", ""),
        ("DT", "202002291234 Doe", ""),
    ],
)
def test_shifted_dates_are_dates(vr, text, pattern):
    """De-identification: a shifted value is valid for its VR, of the same precision, and what is no date goes."""
    keyword = {"DA": "StudyDate", "DT": "AcquisitionDateTime"}[vr]
    value = replaced(keyword, text, dates=Dates.SHIFT)
    assert re.fullmatch(pattern, value)
    assert value != text or not text
    assert values.check(vr, value) == ""


def test_uids_are_replaced_the_same_everywhere():
    """De-identification: one UID becomes one other under a key, wherever it stands, another under another key; a UID
    that PS3.6 registers stays.
    """
    one, two = replaced("SOPInstanceUID", "1.2.3.4"), replaced("SOPInstanceUID", "1.2.3.5")
    assert one.startswith("2.25.")
    assert len(one) <= 64
    assert values.check("UI", one) == ""
    assert len({one, two, "1.2.3.4", replaced("SOPInstanceUID", "1.2.3.4", key=OTHER_KEY)}) == 4
    assert replaced("ReferencedSOPInstanceUID", "1.2.3.4") == one
    assert replaced("FailedSOPInstanceUIDList", "1.2.3.4\\1.2.3.5") == f"{one}\\{two}"
    assert replaced("FrameOfReferenceUID", "1.2.840.10008.1.4.1.1") == "1.2.840.10008.1.4.1.1"
    assert replaced("SOPInstanceUID", "") == ""


def test_uids_of_instances_that_the_table_leaves_out_follow():
    """De-identification: references that the table does not list are replaced like what they refer to, or retained."""
    same = replaced("SOPInstanceUID", "1.2.3.4")
    for keyword in ("SOPInstanceUIDOfConcatenationSource", "VolumeFrameOfReferenceUID"):
        assert fate(keyword) is Fate.REPLACE
        assert replaced(keyword, "1.2.3.4") == same
        assert fate(keyword, retain_uids=True) is Fate.KEEP


def test_a_patient_has_one_pseudonym():
    """De-identification: PatientID and PatientName become one pseudonym that depends on the PatientID and the key
    alone; what is empty stays empty.
    """
    name = replaced("PatientName", "Roe^Richard")
    assert name == replaced("PatientID", "MRN7") == replaced("PatientName", "Roe^R.=X")
    assert re.fullmatch(r"DEID-[A-Z2-7]{16}", name)
    assert values.check("LO", name) == values.check("PN", name) == ""
    assert len({name, replaced("PatientID", "MRN8"), replaced("PatientID", "MRN7", key=OTHER_KEY)}) == 3
    assert replaced("PatientID", "") == replaced("PatientName", "") == ""
    assert replaced("PatientName", "Roe^Richard", patient_id="") == ""


def test_dummies_are_valid_for_their_vr():
    """De-identification: a dummy value is one that its VR allows, and says nothing of what it stands for."""
    for vr, dummy in _DUMMIES.items():
        assert values.check(vr, dummy) == "", vr
    assert replaced("OperatorsName", "Roe^Richard\\Doe^Jane") == "ANONYMOUS"
    assert replaced("ContentDate", "20200229") == "19000101"


def test_private_elements_stay_only_where_the_table_says_so():
    """De-identification: private attributes are removed, and with the option all but those of PS3.15 table E.3.10-1;
    what may name somebody is removed of these too.
    """
    b_value, creator, other = 0x0019100C, 0x00190010, 0x00191008
    header = "SIEMENS MR HEADER"
    assert {profile().fate(tag, "IS", header) for tag in (b_value, creator, other)} == {Fate.REMOVE}
    retaining = profile(retain_safe_private=True)
    assert retaining.fate(b_value, "IS", header) is Fate.KEEP
    assert retaining.fate(0x0019770C, "IS", header) is Fate.KEEP
    assert retaining.fate(creator, "LO", header) is Fate.KEEP
    for tag, vr, text in [
        (other, "CS", header),
        (b_value, "IS", "SIEMENS CSA HEADER"),
        (b_value, "IS", ""),
        (b_value, "PN", header),
        (b_value, "DA", header),
        (0x0029100C, "IS", header),
        (creator, "LO", "Dr. Roe"),
        (0x00290010, "LO", header),
    ]:
        assert retaining.fate(tag, vr, text) is Fate.REMOVE
    assert len(safe.PLAIN | safe.SEQUENCES | safe.UIDS) == 479


def test_safe_private_uids_and_sequences_are_no_way_round():
    """De-identification: UIDs of safe private attributes are replaced like any other, unless UIDs are retained; their
    sequences are gone into, and not kept as bytes.
    """
    series, sequence = 0x00991002, 0x2001105F
    retaining = profile(retain_safe_private=True)
    assert retaining.fate(series, "UI", "NQHeader") is Fate.REPLACE
    assert retaining.fate(series, "UN", "NQHeader") is Fate.REPLACE
    assert retaining.replacement(series, "UI", "1.2.3.4") == replaced("SeriesInstanceUID", "1.2.3.4")
    assert retaining.fate(sequence, "UN", "Philips Imaging DD 001") is Fate.REPLACE
    both = profile(retain_safe_private=True, retain_uids=True)
    assert both.fate(series, "UI", "NQHeader") is Fate.KEEP


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CT Thorax Roe, Richard 12.03.1967", "CT Thorax *"),
        ("T1 AX POST 3mm", "T1 AX POST 3mm"),
        ("MRN 123456 left knee", "* left knee"),
        ("W/O contrast, Fr. Müller", "W/O contrast *"),
        ("C5 and L3, 12 5 67", "C5 and L3 *"),
        ("head_and_neck", "head and neck"),
        ("Roe^Richard\\abdomen", "abdomen"),
        ("abdomen\\Roe", "abdomen"),
        ("abdomen\\Roe\\chest", "abdomen\\\\chest"),
        ("", ""),
    ],
)
def test_descriptors_keep_the_words_that_name_nobody(text, expected):
    """De-identification: with clean descriptors a text is reduced to words of radiology and measures."""
    assert fate("SeriesDescription", clean_descriptors=True) is Fate.REPLACE
    assert replaced("SeriesDescription", text, clean_descriptors=True) == expected


def test_a_descriptor_that_needs_a_value_has_one():
    """De-identification: what the basic profile gives a dummy has one too where no word of it stays."""
    assert replaced("ProtocolName", "Roe Richard", clean_descriptors=True) == "ANONYMOUS"
    assert replaced("ProtocolName", "Routine Roe", clean_descriptors=True) == "Routine *"
    assert fate("ProtocolName", clean_descriptors=True) is Fate.REPLACE


def test_structured_content_and_graphics_are_cleaned_inside():
    """De-identification: the options of E.3.3 and E.3.4 go into the sequences, whose texts are cleaned and whose names,
    dates and UIDs have the fates that they have anywhere.
    """
    assert fate("ContentSequence", clean_structured_content=True) is Fate.REPLACE
    assert fate("AcquisitionContextSequence", clean_structured_content=True) is Fate.REPLACE
    assert replaced("TextValue", "No fracture. Roe", clean_structured_content=True) == "No fracture *"
    assert replaced("TextValue", "Roe", clean_structured_content=True) == "ANONYMOUS"
    assert fate("PersonName", clean_structured_content=True) is Fate.REPLACE
    # It may be a birth date.
    for dates in Dates:
        assert replaced("Date", "19701231", clean_structured_content=True, dates=dates) == "19000101"
    assert fate("UID", clean_structured_content=True, retain_uids=True) is Fate.REPLACE
    assert fate("GraphicAnnotationSequence") is Fate.EMPTY
    assert fate("GraphicAnnotationSequence", clean_graphics=True) is Fate.REPLACE
    assert replaced("UnformattedTextValue", "Roe left lung", clean_graphics=True) == "* left lung"


@pytest.mark.parametrize("dates", Dates)
def test_identifiers_that_the_table_passes_over_go(dates):
    """De-identification: a birth date in another calendar, the numbers of orders and the like stay under no option,
    and addresses of the original lead nowhere.
    """
    options = {name: True for name in Options.__slots__ if name != "dates"}
    for keyword in (
        "PatientBirthDateInAlternativeCalendar",
        "PlacerOrderNumberProcedure",
        "FillerOrderNumberImagingServiceRequestRetired",
        "IssuerOfPatientIDQualifiersSequence",
        "EncryptedAttributesSequence",
    ):
        assert fate(keyword, dates=dates, **options) is Fate.REMOVE
    address = "https://pacs.example/studies/1.2.3"
    assert replaced("RetrieveURL", address, dates=dates, **options) == "urn:anonymous"
    assert replaced("HL7InstanceIdentifier", "1.2.3^4", dates=dates, **options) == "ANONYMOUS"


def test_free_text_that_the_table_passes_over_is_cleaned():
    """De-identification: titles and comments that PS3.15 does not list keep no more than descriptors do."""
    assert fate("DocumentTitle") is Fate.REPLACE
    assert replaced("DocumentTitle", "Report of Richard Roe") == "* of *"
    assert replaced("CommentsOnTheScheduledProcedureStep", "Roe") == "ANONYMOUS"


OPTIONS = st.builds(
    Options, dates=st.sampled_from(Dates), **{name: st.booleans() for name in Options.__slots__ if name != "dates"}
)
TAGS = st.one_of(
    st.sampled_from(sorted(basic_actions())),
    st.sampled_from(sorted(DicomDictionary)),
    st.integers(0, 0xFFFFFFFF),
).filter(lambda tag: tag >> 16 != 0x0004)


@given(OPTIONS, TAGS, st.sampled_from(sorted(VRS)), st.text(max_size=40), st.sampled_from(["", "NQHeader"]))
def test_every_element_has_a_fate_and_every_replacement_is_valid(options, tag, file_vr, text, creator):
    """De-identification: whatever tag, VR and value an element has, and whatever the options, its fate is known, and
    what takes its place is ASCII and valid for its VR.
    """
    begun = Profile(options, KEY)
    begun.begin(Identity(patient_id="MRN7"))
    if begun.fate(tag, file_vr, creator) is not Fate.REPLACE:
        return
    known = dictionary.implicit_vr(tag) if file_vr == "UN" else file_vr
    if known not in values.SETTABLE_VRS:
        return
    # No longer than the VR allows, for what is cleaned becomes no longer.
    new = begun.replacement(tag, known, text[:16])
    assert new.isascii()
    assert values.check(known, new) == ""


def test_a_directory_is_refused():
    """De-identification: a DICOMDIR names other files and is refused by its first record."""
    with pytest.raises(ServiceError) as caught:
        profile().fate(tag_for_keyword("FileSetID"), "CS", "")
    assert caught.value.reason is Reason.EDIT_REFUSED


def test_the_file_says_what_was_done():
    """De-identification: the file says that, how (with the codes of CID 7050), and what became of its dates."""

    def added(**options):
        return {addition.tag: addition for addition in profile(**options).additions()}

    plain = added()
    assert plain[0x00120062].value == "YES"
    assert plain[0x00280303].value == "REMOVED"
    assert [item[0].value for item in plain[0x00120064].value] == ["113100"]
    everything = added(**{name: True for name in Options.__slots__ if name != "dates"}, dates=Dates.SHIFT)
    codes = [item[0].value for item in everything[0x00120064].value]
    assert codes == ["113100", "113103", "113104", "113105", "113107", "113108", "113109", "113110", "113111", "113112"]
    assert everything[0x00280303].value == "MODIFIED"
    assert added(dates=Dates.KEEP)[0x00280303].value == "UNMODIFIED"
    for addition in everything.values():
        assert addition.vr == dictionary.implicit_vr(addition.tag)
        inner = addition.value if isinstance(addition.value, tuple) else ((addition,),)
        assert {values.check(one.vr, one.value) for item in inner for one in item} == {""}


def test_every_option_has_its_code():
    """De-identification: each option is a code of CID 7050 of its own."""
    for name in set(Options.__slots__) - {"dates"}:
        assert len(list(methods(Options(**{name: True})))) == 2
