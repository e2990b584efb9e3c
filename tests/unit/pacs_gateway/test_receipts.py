"""The key of receipts: which there may be, how they sign, and what is served of them."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pacs_gateway.adapters.receipts import RECEIPT_TYPE, Receipts
from pacs_gateway.bootstrap import gateway
from pacs_gateway.domain.ledger import Content, FileState, LedgerFile
from pacs_gateway.domain.sessions import ExpectedFile, Progress, SessionFile, UploadSession, receipt_claims
from pacs_gateway.domain.upload import UploadOptions
from pacs_gateway.settings import GatewaySettings

# RFC 8037, A.1 to A.3: a private key, and the thumbprint of its public half.
RFC_8037_D = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
RFC_8037_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


def pem(key: Any, password: bytes | None = None) -> bytes:
    """The key as a file."""
    secret = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    found: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    return found


def receipts_of(folder: Path, key: Any, old_keys: Any = None) -> Receipts:
    """The signer with this key, and a JWKS of old ones."""
    (folder / "key.pem").write_bytes(pem(key))
    if old_keys is not None:
        (folder / "old.json").write_text(json.dumps(old_keys))
    return Receipts(
        key_file=str(folder / "key.pem"), old_keys_file=str(folder / "old.json") if old_keys is not None else ""
    )


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(ec.generate_private_key(ec.SECP256R1()), "ES256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA")],
    ids=["ES256", "EdDSA"],
)
def test_a_receipt_verifies_by_the_served_key(key: Any, algorithm: str, tmp_path: Path) -> None:
    """The header names the type, the algorithm and the key, and the set has that key, and nothing private."""
    receipts = receipts_of(tmp_path, key)
    signed = receipts.sign({"jti": "1", "files": []})
    header = jwt.get_unverified_header(signed)
    assert (header["typ"], header["alg"]) == (RECEIPT_TYPE, algorithm)
    (public,) = json.loads(receipts.keys)["keys"]
    assert (public["kid"], public["alg"], public["use"]) == (header["kid"], algorithm, "sig")
    assert "d" not in public
    assert jwt.decode(signed, jwt.PyJWK(public), algorithms=[algorithm]) == {"jti": "1", "files": []}


def test_the_id_of_a_key_is_its_thumbprint(tmp_path: Path) -> None:
    """The example of RFC 8037, A.3."""
    private = base64.urlsafe_b64decode(f"{RFC_8037_D}=")
    receipts = receipts_of(tmp_path, ed25519.Ed25519PrivateKey.from_private_bytes(private))
    (public,) = json.loads(receipts.keys)["keys"]
    assert public["kid"] == RFC_8037_THUMBPRINT


def test_old_keys_are_served_behind_the_new_one(tmp_path: Path) -> None:
    """Each with its id, and without what is private, should the file hold it; the new one is there once."""
    old = receipts_of(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    signed = old.sign({"jti": "1"})
    (public,) = json.loads(old.keys)["keys"]
    new_key = ed25519.Ed25519PrivateKey.generate()
    (mine,) = json.loads(receipts_of(tmp_path, new_key).keys)["keys"]
    without_id = {name: value for name, value in public.items() if name in {"kty", "crv", "x", "y"}} | {"d": "secret"}
    receipts = receipts_of(tmp_path, new_key, {"keys": [without_id, mine]})
    served = json.loads(receipts.keys)["keys"]
    assert [key["kid"] for key in served] == [mine["kid"], public["kid"]]
    assert b"secret" not in receipts.keys
    key = jwt.PyJWKSet.from_dict(json.loads(receipts.keys))[jwt.get_unverified_header(signed)["kid"]]
    assert jwt.decode(signed, key, algorithms=["ES256"]) == {"jti": "1"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        pem(ed25519.Ed25519PrivateKey.generate(), b"a password"),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["nothing", "nonsense", "with a password", "another curve", "RSA"],
)
def test_a_key_that_cannot_sign_is_told(content: bytes, tmp_path: Path) -> None:
    """The setting is named, and nothing of the file."""
    (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(ValueError, match="RECEIPT_KEY_FILE"):
        Receipts(key_file=str(tmp_path / "key.pem"))
    with pytest.raises(ValueError, match="RECEIPT_KEY_FILE"):
        Receipts(key_file=str(tmp_path / "nowhere.pem"))


@pytest.mark.parametrize("content", ["", "[]", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"kty": "oct", "k": "x"}]}'])
def test_old_keys_that_are_none_are_told(content: str, tmp_path: Path) -> None:
    """A file that is no JWKS, or one of keys that are nobody's to see."""
    (tmp_path / "key.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    (tmp_path / "old.json").write_text(content)
    with pytest.raises(ValueError, match="RECEIPT_OLD_KEYS_FILE"):
        Receipts(key_file=str(tmp_path / "key.pem"), old_keys_file=str(tmp_path / "old.json"))


async def test_a_gateway_does_not_start_with_a_key_that_is_none(tmp_path: Path) -> None:
    """It says which setting is wrong, and ends."""
    settings = GatewaySettings(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        orthanc_url="http://127.0.0.1:1",
        tag_service_target="127.0.0.1:1",
        auth_issuer="x",
        auth_audience="x",
        auth_jwks="x",
        receipt_key_file=str(tmp_path / "nowhere.pem"),
    )
    with pytest.raises(SystemExit, match="RECEIPT_KEY_FILE"):
        async with gateway(settings):
            pass


def test_the_largest_receipt_fits_into_a_message(tmp_path: Path) -> None:
    """As many files as a session may have, with identifiers as long as they may be."""
    (most,) = [one.le for one in GatewaySettings.model_fields["max_session_files"].metadata if hasattr(one, "le")]
    now = datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC)
    uid, size = "1." + "2" * 62, 99_999_999_999
    entry = LedgerFile(
        id=uuid4(),
        upload_id=uuid4(),
        upload_log_id=uuid4(),
        uploaded_by_id=uuid4(),
        upload_source="cd_import",
        study_instance_uid=uid,
        series_instance_uid=uid,
        sop_instance_uid=uid,
        orthanc_id="-".join(["0" * 8] * 5),
        filename="",
        edits_sha256="",
        received_at=now,
        stored=Content(size, "0" * 64, "0" * 32),
        state=FileState.VERIFIED,
        finished_at=now,
    )
    session = UploadSession(
        id=uuid4(),
        created_by_id=uuid4(),
        created_at=now,
        expires_at=now,
        options=UploadOptions(patient_id=uuid4(), order_id=uuid4()),
        number_of_files=most,
        lists_files=True,
    )
    files = [SessionFile(ExpectedFile(f"{number:064x}", size), entry, is_held=True) for number in range(most)]
    claims = receipt_claims(Progress(session, files), issuer="ris-dicom-gateway", at=now)
    signed = receipts_of(tmp_path, ed25519.Ed25519PrivateKey.generate()).sign(claims)
    assert len(claims["files"]) == most
    assert len(signed) < MAX_MESSAGE_BYTES - 1000
