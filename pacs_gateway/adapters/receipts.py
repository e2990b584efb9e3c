"""The key that signs receipts, and the keys that they are checked with.

A receipt is a JWT (RFC 7519) of a type of its own, so that nobody takes it for a token (RFC 8725, 3.11). A key's id is
its thumbprint (RFC 7638).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

RECEIPT_TYPE: Final = "upload-receipt+jwt"
_MAX_FILE_BYTES: Final = 1 << 20
# The members that make a key what it is (RFC 7638 3.2, RFC 8037 2), all of them public.
_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_ABOUT: Final = ("kid", "alg", "use")


class Receipts:
    """The port `ReceiptSigner`."""

    def __init__(self, *, key_file: str, old_keys_file: str = "") -> None:
        """`key_file` holds an EC P-256 or an Ed25519 key (PEM, without a password), `old_keys_file` a JWKS of keys that
        signed earlier receipts. Raises ValueError, which names the setting, where a file is not so.
        """
        try:
            key = serialization.load_pem_private_key(_content(key_file), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError("RECEIPT_KEY_FILE holds no private key in PEM, or one with a password.") from error
        match key:
            case ed25519.Ed25519PrivateKey():
                self._algorithm, jwk = "EdDSA", OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
            case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
                self._algorithm, jwk = "ES256", ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
            case _:
                raise ValueError("RECEIPT_KEY_FILE holds neither an EC P-256 nor an Ed25519 key.")
        self._key = key
        self._kid = _thumbprint(jwk)
        mine = {**_public(jwk), "kid": self._kid, "alg": self._algorithm, "use": "sig"}
        others = [one for one in _old_keys(old_keys_file) if one["kid"] != self._kid]
        self.keys = json.dumps({"keys": [mine, *others]}).encode()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The receipt (RFC 7515, compact)."""
        headers = {"kid": self._kid, "typ": RECEIPT_TYPE}
        return jwt.encode(dict(claims), self._key, self._algorithm, headers=headers)


def _old_keys(path: str) -> list[dict[str, Any]]:
    """The keys of a JWKS, each with an id, and nothing of them that is private."""
    if not path:
        return []
    try:
        return [
            {
                **_public(one),
                **{name: one[name] for name in _ABOUT if name in one},
                "kid": str(one.get("kid") or _thumbprint(one)),
            }
            for one in json.loads(_content(path))["keys"]
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("RECEIPT_OLD_KEYS_FILE holds no JWKS of EC, OKP or RSA keys.") from error


def _content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _public(jwk: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(jwk[name]) for name in _MEMBERS[jwk["kty"]]}


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    canonical = json.dumps(_public(jwk), sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
