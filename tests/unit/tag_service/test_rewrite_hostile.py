"""M10, R8: files and edits that are made to keep the rewriter busy take time in proportion to their size."""

import sys

import pytest

from service_runtime.errors import InvalidFieldError
from tag_service.domain.editing.provenance import ModificationReason
from tests.unit.tag_service.building import EXPLICIT_LITTLE, Writer, edit, plain

EXPLICIT = Writer(EXPLICIT_LITTLE)
SEQUENCE = "RequestAttributesSequence"
INSIDE = {"set": tuple(f"{SEQUENCE}[{number}].AccessionNumber=B{number}" for number in range(100))}
REPEATED = {
    "sequences": (EXPLICIT.sequence(0x00400275), INSIDE),
    "sequences as UN": (EXPLICIT.element(0x00400275, "UN", b""), INSIDE),
    "text in place of sequences": (EXPLICIT.text(0x00400275, "LO", "A"), INSIDE),
    "recorded names": (
        EXPLICIT.text(0x00100010, "PN", "Roe"),
        {"patient_name": "Doe", "record_original": ModificationReason.COERCE},
    ),
}


def steps(data, edits):
    """How many calls of functions editing takes, be it to an end or to a refusal."""
    count = 0

    def counted(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(counted)
    try:
        edit(data, **edits)
    except InvalidFieldError:
        pass
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", REPEATED)
def test_what_stands_many_times_takes_its_time_once_each(name):
    """Twice as many elements that the same edits are about take twice the work, and not four times."""
    element, edits = REPEATED[name]
    few, many = (steps(EXPLICIT.file(*plain(EXPLICIT, *[element] * count)), edits) for count in (400, 800))
    assert few < many < 2.5 * few


def test_a_sequence_that_is_made_of_an_empty_element_is_made_once():
    """An edit that leads into an attribute which stands twice is wrong, whether it came as a sequence or not."""
    element = EXPLICIT.element(0x00400275, "UN", b"")
    edits = {"set": (f"{SEQUENCE}[0].AccessionNumber=B",)}
    assert EXPLICIT.text(0x00080050, "SH", "B") in edit(EXPLICIT.file(*plain(EXPLICIT, element)), **edits)
    with pytest.raises(InvalidFieldError):
        edit(EXPLICIT.file(*plain(EXPLICIT, element, element)), **edits)
