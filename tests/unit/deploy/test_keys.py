"""The development key: made once, for its owner only, and its tokens are what the services take."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import jwt
import pytest

from deploy.local import keys
from deploy.local.keys import AUDIENCE, ISSUER, development_key, receipt_key
from deploy.local.people import USERS, user_with_role
from deploy.local.process import PartError
from pacs_gateway.adapters.receipts import Receipts
from service_runtime.identity import TokenVerifier


def test_the_key_is_made_once(tmp_path: Path) -> None:
    """A second use finds the first one's key, so tokens outlive the runner."""
    assert development_key(tmp_path).pem == development_key(tmp_path).pem


def test_the_private_half_is_for_its_owner_only(tmp_path: Path) -> None:
    """Nobody else can read the private key, and the public file holds nothing private."""
    key = development_key(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "development.pem").stat().st_mode) == 0o600
    (jwk,) = json.loads(key.jwks.read_text())["keys"]
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_first_use_at_the_same_moment_gives_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runners that find no key and both make one go on with the same one, and the JWKS is its public half."""
    both_made_one = Barrier(2)
    make = keys._new_pem

    def make_at_the_same_moment() -> bytes:
        pem = make()
        both_made_one.wait(timeout=10)
        return pem

    monkeypatch.setattr(keys, "_new_pem", make_at_the_same_moment)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(development_key, [tmp_path, tmp_path])
    assert first.pem == second.pem == (tmp_path / "development.pem").read_bytes()
    assert json.loads(first.jwks.read_text())["keys"] == [keys._public_jwk(first.pem)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["development.pem", "jwks.json"]


def test_the_key_of_receipts_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """A second use finds the first one's key, which is no other key's, and which the gateway can sign with."""
    path = receipt_key(tmp_path / "keys")
    content = path.read_bytes()
    assert receipt_key(tmp_path / "keys").read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert development_key(tmp_path / "keys").pem != content
    assert Receipts(key_file=str(path)).sign({"jti": "1"}).count(".") == 2


@pytest.mark.parametrize("content", [b"", b"no key at all", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_broken_key_is_told_of(content: bytes, tmp_path: Path) -> None:
    """A file that holds no key gives a message that says what to do."""
    (tmp_path / "development.pem").write_bytes(content)
    with pytest.raises(PartError, match="delete the file"):
        development_key(tmp_path)


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.role)
async def test_the_services_take_its_tokens(user: object, tmp_path: Path) -> None:
    """A token for each demo user is good to the services, and they find the user in it."""
    key = development_key(tmp_path)
    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwks=str(key.jwks))
    wanted = user_with_role(user.role).id
    found, _ = await verifier.verify([("authorization", f"Bearer {key.sign(wanted)}")])
    assert str(found) == wanted


def test_claims_can_be_replaced_and_left_out(tmp_path: Path) -> None:
    """What a test wants to be wrong with a token can be made wrong."""
    token = development_key(tmp_path).sign("someone", iss="another", exp=None)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == "another"
    assert "exp" not in claims
