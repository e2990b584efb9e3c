"""The checks of a request for edits that need no file."""

import pytest

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tag_service.domain.editing.edits import Edits, plan
from tag_service.domain.standard import paths
from tag_service.domain.standard.paths import Path, PrivateAttribute, Step


def problems(**fields):
    """The fields that are wrong, each with its description."""
    with pytest.raises(InvalidFieldError) as caught:
        plan(Edits(**fields))
    return {violation.field: violation.description for violation in caught.value.violations}


def refusal(**fields):
    """The error of edits that are refused."""
    with pytest.raises(ServiceError) as caught:
        plan(Edits(**fields))
    assert caught.value.reason is Reason.EDIT_REFUSED
    return caught.value


def test_no_edits_plan_nothing():
    """Without edits there is nothing to do."""
    assert plan(Edits()) == ()


def test_named_fields_become_edits_of_their_attributes():
    """Each named field edits the attribute of its name; None leaves it alone, "" empties it."""
    planned = plan(
        Edits(
            patient_id="MRN9",
            patient_name="Doe^Jane",
            patient_birth_date="19700131",
            patient_sex="F",
            accession_number="A1",
            study_date="20240229",
            study_description="",
        )
    )
    assert {edit.path.attribute: (edit.field, edit.value) for edit in planned} == {
        0x00100020: ("PatientID", "MRN9"),
        0x00100010: ("PatientName", "Doe^Jane"),
        0x00100030: ("PatientBirthDate", "19700131"),
        0x00100040: ("PatientSex", "F"),
        0x00080050: ("AccessionNumber", "A1"),
        0x00080020: ("StudyDate", "20240229"),
        0x00081030: ("StudyDescription", ""),
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("StudyID", Path((), 0x00200010)),
        ("(0020,0010)", Path((), 0x00200010)),
        ("(0018,602c)", Path((), 0x0018602C)),
        ('(0029,"SIEMENS CSA HEADER",10)', Path((), PrivateAttribute(0x0029, "SIEMENS CSA HEADER", 0x10))),
        ('(0029, "A=B.C[0]", fF)', Path((), PrivateAttribute(0x0029, "A=B.C[0]", 0xFF))),
        (
            "ReferencedStudySequence[0].ReferencedSOPInstanceUID",
            Path((Step(0x00081110, 0),), 0x00081155),
        ),
        (
            '(0008,1115)[2].(0009,"X",01)[10].StudyID',
            Path((Step(0x00081115, 2), Step(PrivateAttribute(0x0009, "X", 1), 10)), 0x00200010),
        ),
    ],
)
def test_paths_are_parsed(text, path):
    """M9: Keywords, tags, private tags by creator and items of sequences are understood, in `set` and in `remove`."""
    assert paths.parse(text) == path
    assert [edit.path for edit in plan(Edits(remove=(text,)))] == [path]


def test_the_value_begins_after_the_first_equals_sign_outside_quotation_marks():
    """A value, and a creator, may hold an equals sign."""
    planned = plan(Edits(set=("StudyComments=a=b", '(0029,"A=B",10)=c=d', "StudyID=")))
    assert [edit.value for edit in planned] == ["a=b", "c=d", ""]
    assert planned[1].path.attribute == PrivateAttribute(0x0029, "A=B", 0x10)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "NoSuchKeyword",
        "patientid",
        "(0010,0020",
        "0010,0020",
        "00100020",
        "(0010,002)",
        "(0010,002G)",
        "(0010,0020)x",
        "PatientID ",
        "StudyID.PatientID",
        "ReferencedStudySequence[0]",
        "ReferencedStudySequence[0].",
        "ReferencedStudySequence[].StudyID",
        "ReferencedStudySequence[-1].StudyID",
        "ReferencedStudySequence[0]StudyID",
        "ReferencedStudySequence.StudyID",
        "PatientName[0].StudyID",
        "(0002,0010)",
        "TransferSyntaxUID",
        "(0000,0100)",
        "(0008,0000)",
        "(FFFE,E000)",
        "(0029,1010)",
        "(0029,0010)",
        '(0028,"CREATOR",10)',
        '(0007,"CREATOR",10)',
        '(0029,"",10)',
        '(0029,"   ",10)',
        '(0029,"CREATOR",100)',
        '(0029,"CREATOR",1)',
        '(0029,"' + "A" * 65 + '",10)',
        '(0029,"A\tB",10)',
        "SpecificCharacterSet",
        "ReferencedStudySequence[0]." * 40 + "StudyID",
    ],
)
def test_what_is_no_path_for_an_edit_is_refused(path):
    """Text that is no path, and paths into what no edit may touch, are wrong in `set` and in `remove`."""
    found = problems(set=("StudyID=1", f"{path}=1"), remove=("StudyDate", "StudyTime", path))
    assert set(found) == {"set[1]", "remove[2]"}


@pytest.mark.parametrize(
    "path",
    [
        "PixelData",
        "ReferencedStudySequence",
        "(0042,0011)",
        "(0010,0001)",
        "(6000,3000)",
        "RedPaletteColorLookupTableData",
    ],
)
def test_set_refuses_what_no_text_can_fill(path):
    """Sequences, bulk data and unknown attributes cannot be set, but removed."""
    assert set(problems(set=(f"{path}=1",))) == {"set[0]"}
    assert len(plan(Edits(remove=(path,)))) == 1


def test_set_needs_a_value():
    """`set` without an equals sign is wrong."""
    assert set(problems(set=("StudyID",))) == {"set[0]"}


def test_all_that_is_wrong_is_told_at_once_and_never_quoted():
    """One error has a violation for every wrong value, under its JSON name, without the value."""
    found = problems(
        patient_id="SECRET" * 20,
        patient_name="SECRET=SECRET=SECRET=SECRET",
        patient_birth_date="SECRET",
        patient_sex="SECRET",
        accession_number="SECRETSECRETSECRET",
        study_date="20230230",
        study_description="SECRET\\SECRET",
        set=("StudyID=OK", "SECRET=1", "SeriesNumber=SECRET"),
        remove=("SECRET",),
    )
    assert set(found) == {
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyDate",
        "StudyDescription",
        "set[1]",
        "set[2]",
        "remove[0]",
    }
    assert not any("SECRET" in description or "20230230" in description for description in found.values())


def test_patient_sex_is_one_of_its_enumerated_values():
    """PatientSex is M, F, O or empty, however it is named."""
    assert "PatientSex" in problems(patient_sex="X")
    assert "set[0]" in problems(set=("(0010,0040)=U",))
    for sex in ("M", "F", "O", ""):
        assert len(plan(Edits(patient_sex=sex))) == 1


def test_an_attribute_of_either_integer_vr_takes_what_one_of_them_holds():
    """A value of VR "US or SS" is right when one of the two holds it."""
    assert len(plan(Edits(set=("SmallestImagePixelValue=-5", "LargestImagePixelValue=65535")))) == 2
    assert set(problems(set=("SmallestImagePixelValue=70000", "LargestImagePixelValue=-5\\65535"))) == {
        "set[0]",
        "set[1]",
    }


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"patient_id": "1", "set": ("PatientID=2",)}, {"set[0]"}),
        ({"set": ("StudyID=1", "(0020,0010)=1")}, {"set[1]"}),
        ({"set": ("StudyID=1",), "remove": ("StudyID",)}, {"remove[0]"}),
        ({"remove": ("StudyID", "StudyID")}, {"remove[1]"}),
        ({"set": ('(0029,"A",10)=1', '(0029,"A ",10)=2')}, {"set[1]"}),
        (
            {"set": ("RequestAttributesSequence[0].RequestedProcedureID=1",), "remove": ("RequestAttributesSequence",)},
            {"set[0]"},
        ),
        ({"set": ('(0029,"A",10)=1',), "remove_private_tags": True}, {"set[0]"}),
    ],
)
def test_edits_that_contradict_each_other_are_refused(fields, wrong):
    """One path has one edit, and nothing is set inside what another edit takes away."""
    assert set(problems(**fields)) == wrong


def test_the_same_attribute_in_two_items_is_two_paths():
    """Edits of different items do not clash."""
    items = [f"RequestAttributesSequence[{item}].RequestedProcedureID={item}" for item in range(3)]
    assert len(plan(Edits(set=(*items, "RequestedProcedureID=9")))) == 4


@pytest.mark.parametrize(
    "keyword", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_identifiers_are_neither_removed_nor_emptied(keyword):
    """M8: No edit takes an identifier away, not with `force` either."""
    assert keyword in refusal(remove=(keyword,), force=True).message
    assert keyword in refusal(set=(f"{keyword}=",), force=True).message


def test_patient_id_is_not_emptied():
    """M8: PatientID keeps a value: spaces are none."""
    assert refusal(patient_id="").metadata == {"field": "PatientID"}
    assert refusal(patient_id="   ").metadata == {"field": "PatientID"}


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_uids_are_replaced_only_with_force(keyword):
    """M8: Replacing a UID that identifies needs `force`."""
    refusal(set=(f"{keyword}=1.2.3",))
    assert len(plan(Edits(set=(f"{keyword}=1.2.3",), force=True))) == 1


def test_uids_inside_a_sequence_are_references():
    """A UID in an item identifies something else, and is edited like any attribute."""
    path = "ReferencedStudySequence[0].SOPInstanceUID"
    assert len(plan(Edits(set=(f"{path}=1.2.3",)))) == 1
    assert len(plan(Edits(remove=(path,)))) == 1


def test_the_number_of_edits_is_limited():
    """A request cannot ask for edits without end."""
    assert "set" in problems(remove=("StudyID",) * 201)
