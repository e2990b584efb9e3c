"""Between the messages and the domain."""

import dataclasses

import pytest

from ris.tags.v1 import dicom_tags_pb2, tag_service_pb2
from service_runtime.errors import Reason
from tag_service.api.mapping import content_disposition, edits_from, header_to_proto, verdict_to_proto
from tag_service.domain.editing.edits import Edits
from tag_service.domain.reading.chosen import ChosenAttribute
from tag_service.domain.reading.dicom_tags import FIELDS, DicomTags, Header
from tag_service.domain.standard.dictionary import entry_of
from tag_service.domain.standard.problems import Problem, ProblemCode, Severity
from tag_service.domain.validating.validation import Verdict


def test_an_absent_option_is_not_an_empty_one():
    """A field that is present and empty empties its attribute, an absent one leaves it alone."""
    request = tag_service_pb2.ModifyTagsRequest(
        dicom_patient_id="MRN9",
        patient_sex="",
        remove_private_tags=True,
        set=["StudyID=7"],
        remove=["StudyTime"],
        force=True,
    )
    assert edits_from(request) == Edits(
        patient_id="MRN9",
        patient_sex="",
        remove_private_tags=True,
        set=("StudyID=7",),
        remove=("StudyTime",),
        force=True,
    )
    assert edits_from(tag_service_pb2.ModifyTagsRequest()) == Edits()


def test_every_attribute_has_its_own_field():
    """Each of the 20 attributes goes into the field whose JSON name is its keyword."""
    values = {name: f"value of {name}" for name in DicomTags._fields}
    tags = header_to_proto(Header(DicomTags(**values), ())).tags
    by_keyword = {field.json_name: getattr(tags, field.name) for field in dicom_tags_pb2.DicomTags.DESCRIPTOR.fields}
    assert by_keyword == {entry_of(tag)[3]: values[name] for tag, name in FIELDS.items()}


def test_chosen_attributes_keep_what_they_say():
    """Every field of an attribute that was chosen arrives, in the order given."""
    chosen = [
        ChosenAttribute("Rows", "(0028,0010)", "US", "512", is_present=True),
        ChosenAttribute("(0040,0275)", "(0040,0275)", "SQ", is_present=True, item_count=2),
        ChosenAttribute("PixelData", "(7FE0,0010)", "OW", is_present=True, size_bytes=5_000_000_000),
        ChosenAttribute("StudyID"),
    ]
    attributes = header_to_proto(Header(DicomTags(), ()), chosen).attributes
    names = [field.name for field in dataclasses.fields(ChosenAttribute)]
    assert names == [field.name for field in tag_service_pb2.Attribute.DESCRIPTOR.fields]
    assert [{name: getattr(attribute, name) for name in names} for attribute in attributes] == [
        dataclasses.asdict(attribute) for attribute in chosen
    ]


def test_problems_keep_what_they_say():
    """Severity, code, tag, message and rule of a problem arrive, whether its code is of a problem or of an error."""
    problems = (
        Problem(ProblemCode.DUPLICATE_TAG, "Twice.", "(0010,0020)", rule="PS3.5 7.1"),
        Problem(Reason.TRUNCATED_FILE, "Cut.", "(7FE0,0010)", Severity.ERROR, rule="PS3.5 7.1.1"),
    )
    verdict = Verdict(
        is_dicom=True,
        is_valid=False,
        transfer_syntax_uid="1.2.840.10008.1.2",
        transfer_syntax_name="Implicit VR Little Endian",
        sop_class_uid="1.2",
        sop_class_name="",
        modality="CT",
        size_bytes=5_000_000_000,
        has_pixel_data=True,
        problems=problems,
        problems_left_out=7,
    )
    answer = verdict_to_proto(verdict)
    assert [
        (problem.severity, problem.code, problem.tag, problem.message, problem.rule) for problem in answer.problems
    ] == [
        ("warning", "DUPLICATE_TAG", "(0010,0020)", "Twice.", "PS3.5 7.1"),
        ("error", "TRUNCATED_FILE", "(7FE0,0010)", "Cut.", "PS3.5 7.1.1"),
    ]
    for field in (
        "is_dicom",
        "is_valid",
        "transfer_syntax_uid",
        "sop_class_uid",
        "modality",
        "size_bytes",
        "has_pixel_data",
        "problems_left_out",
    ):
        assert getattr(answer, field) == getattr(verdict, field)
    assert list(header_to_proto(Header(DicomTags(), problems)).warnings) == list(answer.problems)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("", "attachment; filename=\"edited.dcm\"; filename*=UTF-8''edited.dcm"),
        ("CT 1.dcm", "attachment; filename=\"CT 1.dcm\"; filename*=UTF-8''CT%201.dcm"),
        ('a"b\\c;é.dcm', "attachment; filename=\"a_b_c__.dcm\"; filename*=UTF-8''a%22b%5Cc%3B%C3%A9.dcm"),
    ],
)
def test_a_download_is_named_safely(name, header):
    """The name of the upload is the name of the download, in ASCII that cannot break out of the header."""
    assert content_disposition(name) == header
    assert header.isascii()
