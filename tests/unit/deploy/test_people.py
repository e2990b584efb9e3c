"""The demo's people are ones that the registry can take, and that the sample files belong to."""

from uuid import UUID

import pydicom
import pytest
from pydicom.data import get_testdata_file

from deploy.local.people import CT_PATIENT, MR_PATIENT, ORDERS, PATIENTS, USERS, DemoPatient, user_with_role


def test_ids_are_uuids_and_differ() -> None:
    """Every user, patient and order has an id of its own."""
    ids = [entry.id for entry in (*USERS, *PATIENTS, *ORDERS)]
    assert len(set(ids)) == len(ids)
    assert [str(UUID(value)) for value in ids] == ids


def test_there_is_one_user_for_each_role() -> None:
    """`make token ROLE=...` has somebody to sign for, whatever the role."""
    assert [user.role for user in USERS] == ["admin", "radiologist", "technologist", "viewer", "service"]
    assert [user_with_role(user.role) for user in USERS] == list(USERS)
    with pytest.raises(ValueError, match="There is no role nurse"):
        user_with_role("nurse")


def test_orders_are_of_the_patients() -> None:
    """Every order is for a patient of the demo, and its accession number fits into SH (16 characters)."""
    assert {order.patient_id for order in ORDERS} <= {patient.id for patient in PATIENTS}
    assert all(len(order.accession_number) <= 16 for order in ORDERS)


@pytest.mark.parametrize(("patient", "name"), [(CT_PATIENT, "CT_small.dcm"), (MR_PATIENT, "MR_small.dcm")])
def test_the_sample_files_are_the_patients(patient: DemoPatient, name: str) -> None:
    """PatientID of the sample file is the patient's MRN."""
    assert pydicom.dcmread(str(get_testdata_file(name)), stop_before_pixels=True).PatientID == patient.mrn
