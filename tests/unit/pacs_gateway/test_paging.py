"""Page sizes and page tokens."""

import base64
import json
from typing import Any

import pytest

from pacs_gateway.api.fields import Fields
from pacs_gateway.api.paging import next_page_token, page_request
from pacs_gateway.domain.paging import PageRequest
from pacs_gateway.domain.study import StudyFilter
from ris.pacs.v1.registry_service_pb2 import ListOrdersRequest, ListPatientsRequest
from ris.pacs.v1.study_service_pb2 import ListPatientStudiesRequest, ListStudiesRequest
from service_runtime.errors import InvalidFieldError, ServiceError
from tests.unit.pacs_gateway.fakes import JONES, SMITH, World, file_of, tags_of

PLACE = ("100", "1.2.3")


def read(request: Any) -> PageRequest:
    """The page that a request asks for. Raises INVALID_FIELD."""
    fields = Fields()
    page = page_request(fields, request)
    fields.expect_valid()
    return page


def wrong_fields(request: Any) -> list[str]:
    """Which fields of a request are wrong."""
    with pytest.raises(InvalidFieldError) as raised:
        read(request)
    return [violation.field for violation in raised.value.violations]


def encoded(content: Any) -> str:
    """A token with this content, made as the service makes them."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decoded(token: str) -> Any:
    """The content of a token."""
    return json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))


@pytest.mark.parametrize(("limit", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_a_page_has_its_limit(limit: int, size: int) -> None:
    """No limit is 100."""
    assert read(ListStudiesRequest(limit=limit)) == PageRequest(size)


@pytest.mark.parametrize("limit", [-1, 1001, 2**31 - 1, -(2**31)])
def test_a_limit_out_of_bounds_is_wrong(limit: int) -> None:
    """A page is neither huge nor negative."""
    assert wrong_fields(ListStudiesRequest(limit=limit)) == ["limit"]


def test_a_token_leads_back_to_its_place() -> None:
    """The next page begins where the one before ended, also with another limit."""
    request = ListStudiesRequest(limit=5, modality="CT", order_by="PatientName")
    token = next_page_token(request, PLACE)
    request.page_token, request.limit = token, 7
    assert read(request) == PageRequest(7, PLACE)
    assert next_page_token(request, PLACE) == token


def test_the_last_page_has_no_token() -> None:
    """Where nothing follows, the token is empty."""
    assert next_page_token(ListStudiesRequest(), ()) == ""


@pytest.mark.parametrize(
    "other",
    [
        ListStudiesRequest(modality="MR"),
        ListStudiesRequest(modality="CT", patient_name="A"),
        ListStudiesRequest(modality="CT", order_by="PatientName"),
        ListStudiesRequest(dicom_patient_id="CT"),
        ListStudiesRequest(),
        ListPatientStudiesRequest(patient_id="CT"),
        ListPatientsRequest(),
        ListOrdersRequest(status="CT"),
    ],
)
def test_a_token_is_of_its_question_only(other: Any) -> None:
    """With other filters, another order or another list, a token is refused."""
    other.page_token = next_page_token(ListStudiesRequest(modality="CT"), PLACE)
    assert wrong_fields(other) == ["page_token"]


def test_lists_of_the_same_shape_do_not_take_each_others_tokens() -> None:
    """Two questions whose bytes are the same are still two questions."""
    token = next_page_token(ListPatientsRequest(), PLACE)
    assert wrong_fields(ListOrdersRequest(page_token=token)) == ["page_token"]


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "=",
        "====",
        "!!!",
        "\u00e9",
        "a b",
        "A" * 1025,
        "A" * 100_000,
        encoded([]),
        encoded({}),
        encoded("x"),
        encoded(None),
        encoded(["0" * 16, "100", "1.2.3"]),
        encoded([["a"], "100", "1.2.3"]),
        base64.urlsafe_b64encode(b"[" * 760).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff\xfe").decode().rstrip("="),
        base64.urlsafe_b64encode(b"1" * 700).decode().rstrip("="),
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """Whatever is sent as a token, the answer is a violation that does not repeat it."""
    with pytest.raises(InvalidFieldError) as raised:
        read(ListStudiesRequest(page_token=token))
    (violation,) = raised.value.violations
    assert violation.field == "page_token"
    assert len(violation.description) < 200


def test_a_token_longer_than_any_is_not_even_decoded() -> None:
    """The right digest does not open the door for a place of any length."""
    digest = decoded(next_page_token(ListStudiesRequest(), PLACE))[0]
    assert read(ListStudiesRequest(page_token=encoded([digest, "1" * 500]))).after == ("1" * 500,)
    assert wrong_fields(ListStudiesRequest(page_token=encoded([digest, "1" * 2000]))) == ["page_token"]


@pytest.mark.parametrize("rest", [[], [1], [None], [["100"], "1.2.3"], [{}]])
def test_a_forged_token_of_the_right_question_needs_texts(rest: list[Any]) -> None:
    """The right digest does not make a place of what is none."""
    digest = decoded(next_page_token(ListStudiesRequest(), PLACE))[0]
    assert wrong_fields(ListStudiesRequest(page_token=encoded([digest, *rest]))) == ["page_token"]


@pytest.mark.parametrize(
    "after",
    [
        ("1",),
        ("1", "1.2", "3"),
        ("-1", "1.2"),
        ("x", "1.2"),
        ("", "1.2"),
        ("1e3", "1.2"),
        ("9" * 500, "1.2"),
        ("\u0661", "1.2"),
        (" 1", "1.2"),
    ],
)
async def test_a_forged_place_is_refused_by_the_list(world: World, after: tuple[str, ...]) -> None:
    """What is no place of a list of studies is a wrong page token, no defect."""
    world.pacs.put(file_of(tags_of()))
    with pytest.raises(ServiceError) as raised:
        await world.studies.page(StudyFilter(), PageRequest(10, after))
    assert [violation.field for violation in raised.value.violations] == ["page_token"]


@pytest.mark.parametrize("place", [("0", "1.2"), ("999999999", "x"), ("1", "'; DROP TABLE orders")])
async def test_a_forged_place_of_the_right_form_is_harmless(world: World, place: tuple[str, ...]) -> None:
    """A place that nobody was given shows what the list shows anyway, from somewhere on."""
    world.pacs.put(file_of(tags_of()))
    page = await world.studies.page(StudyFilter(), PageRequest(10, place))
    assert len(page.items) <= 1


async def test_a_token_holds_no_patient_data(world: World) -> None:
    """A token, which is seen in addresses, says nothing of patients, though the list is filtered and sorted by them."""
    for patient in (SMITH, JONES):
        for n in range(2):
            world.pacs.put(
                file_of(tags_of(patient, study_instance_uid=f"1.2.{n}", accession_number="ACC-1", patient_name="S^A"))
            )
    request = ListStudiesRequest(
        limit=1, order_by="PatientName,PatientID", patient_name="S^A", accession_number="ACC-1"
    )
    page = await world.studies.page(StudyFilter(accession_number="ACC-1"), PageRequest(1))
    content = json.dumps(decoded(next_page_token(request, page.last)))
    for secret in (SMITH.mrn, JONES.mrn, "S^A", "ACC-1", SMITH.full_name):
        assert secret not in content
