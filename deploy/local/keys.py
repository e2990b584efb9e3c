"""The development keys: one signs the tokens of `make token`, the demo and the tests, the other their receipts. Never
for anything else.
"""

import contextlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from deploy.local.process import PartError

ISSUER = "https://development.invalid/ris"
AUDIENCE = "ris-dicom-gateway"
_KEY_ID = "development"
_ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class DevelopmentKey:
    """An EC P-256 key in PEM, and the file with its public half as a JWKS."""

    pem: bytes
    jwks: Path

    def sign(self, subject: str, **claims: Any) -> str:
        """A token for the user with id `subject`, good for a day. `claims` replace the usual; None leaves one out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 86_400}
        chosen = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(chosen, self.pem, _ALGORITHM, headers={"kid": _KEY_ID})


def development_key(folder: Path) -> DevelopmentKey:
    """The key of `folder`, made on first use; the file with the private half is for its owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    path, jwks = folder / "development.pem", folder / "jwks.json"
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            _put(path, _new_pem(), mode=0o600)
    # Read back in any case: of two that make the key at the same moment, both go on with the one that was first.
    pem = path.read_bytes()
    _replace(jwks, json.dumps({"keys": [_public_jwk(pem)]}).encode(), mode=0o644)
    return DevelopmentKey(pem, jwks)


def receipt_key(folder: Path) -> Path:
    """The file with the key that signs receipts, in `folder`, made on first use; it is for its owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "receipts.pem"
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            _put(path, _new_pem(), mode=0o600)
    return path


def _new_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_jwk(pem: bytes) -> dict[str, Any]:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PartError("development.pem holds no elliptic curve key: delete the file, and a new key is made.")
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "kid": _KEY_ID, "alg": _ALGORITHM, "use": "sig"}


def _put(path: Path, content: bytes, *, mode: int) -> None:
    """Makes the file, whole or not at all. Raises FileExistsError where another was quicker."""
    new = _beside(path, content, mode=mode)
    try:
        path.hardlink_to(new)
    finally:
        new.unlink()


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Writes the file whole or not at all: others may be reading it."""
    _beside(path, content, mode=mode).replace(path)


def _beside(path: Path, content: bytes, *, mode: int) -> Path:
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    return new
