import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from service_runtime import identity, keys
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CLOCK_SKEW_SECONDS, AnyUser, TokenVerifier

ISSUER = "https://issuer.invalid"
AUDIENCE = "gateway"
USER = uuid.UUID(int=7)

EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
KEYS = {
    "keys": [
        {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "ec", "alg": "ES256", "use": "sig"},
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "rsa"},
        {**ECAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True), "kid": "enc", "use": "enc"},
        {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "alg": "HS256"},
    ]
}


@pytest.fixture
def verifier(tmp_path: Path) -> TokenVerifier:
    """A verifier with an EC, an RSA and a symmetric key, and one that is not for signing."""
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(KEYS))
    return TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwks=str(jwks))


def token(
    key: Any = EC_KEY, algorithm: str = "ES256", *, header: dict[str, Any] | None = None, **changes: object
) -> str:
    """A good token, but for these changes; None leaves a claim out."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(USER), "exp": int(time.time()) + 600} | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={"kid": "ec"} if header is None else header)


def metadata(value: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with this authorization."""
    return (("user-agent", "x"), ("authorization", value))


async def reason_of(verifier: TokenVerifier, given: str) -> Reason:
    """Why this token is refused."""
    with pytest.raises(ServiceError) as caught:
        await verifier.verify(metadata(f"Bearer {given}"))
    return caught.value.reason


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
async def test_es256_and_rs256_tokens_are_good(verifier: TokenVerifier, scheme: str) -> None:
    """A token signed with a key of the set tells its subject, whichever of the two algorithms it is signed with."""
    for good in (token(), token(RSA_KEY, "RS256", header={"kid": "rsa"}), token(aud=["other", AUDIENCE])):
        assert await verifier.verify(metadata(scheme + good)) == (USER, good)


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic dTpw", "bearer\tx", "xBearer y"])
async def test_call_without_a_bearer_token_is_told_so(verifier: TokenVerifier, value: str) -> None:
    """No authorization, or one of another scheme, is TOKEN_MISSING."""
    for given in (metadata(value), (), None):
        with pytest.raises(ServiceError) as caught:
            await verifier.verify(given or ())
        assert caught.value.reason is Reason.TOKEN_MISSING


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
async def test_missing_claim_is_refused(verifier: TokenVerifier, claim: str) -> None:
    """A token must say when it expires, who issued it, for whom, and about whom."""
    assert await reason_of(verifier, token(**{claim: None})) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://issuer.invalid/"},
        {"aud": "other"},
        {"aud": []},
        {"sub": "dr.jones"},
        {"sub": ""},
        {"exp": "soon"},
        {"nbf": int(time.time()) + 3600},
    ],
    ids=str,
)
async def test_wrong_claim_is_refused(verifier: TokenVerifier, changes: dict[str, object]) -> None:
    """Another issuer or audience, a subject that is no UUID, a time that is none or has not come: TOKEN_INVALID."""
    assert await reason_of(verifier, token(**changes)) is Reason.TOKEN_INVALID


async def test_expired_token_is_told_apart_and_clocks_may_differ_by_a_minute(verifier: TokenVerifier) -> None:
    """An expired token is TOKEN_EXPIRED, once the clock skew that Envoy allows too has passed."""
    assert await reason_of(verifier, token(exp=int(time.time()) - CLOCK_SKEW_SECONDS - 1)) is Reason.TOKEN_EXPIRED
    await verifier.verify(metadata(f"Bearer {token(exp=int(time.time()) - CLOCK_SKEW_SECONDS + 5)}"))


async def test_expired_token_of_a_stranger_is_invalid(verifier: TokenVerifier) -> None:
    """The signature is looked at before the claims: who cannot sign learns nothing else."""
    assert await reason_of(verifier, token(OTHER_KEY, exp=1)) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("header", [{"kid": "other"}, {"kid": ""}, {}, {"kid": "enc"}], ids=str)
async def test_key_that_is_not_in_the_set_is_refused(verifier: TokenVerifier, header: dict[str, Any]) -> None:
    """An unknown key, none at all, or one for another use than signing: TOKEN_INVALID."""
    assert await reason_of(verifier, token(OTHER_KEY, header=header)) is Reason.TOKEN_INVALID


def raw_token(header: object, claims: object, signature: bytes = b"") -> str:
    """A token of any header, unsigned or signed in any way."""
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(USER), "exp": 9_999_999_999}


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 1, "HS256", "RS256", "PS256", "ES384"])
@pytest.mark.parametrize("kid", ["ec", "rsa", "secret"])
async def test_unsigned_token_is_refused(verifier: TokenVerifier, algorithm: object, kid: str) -> None:
    """A token without a signature is refused whatever algorithm and key it names."""
    unsigned = raw_token({"alg": algorithm, "kid": kid, "typ": "JWT"}, CLAIMS)
    assert await reason_of(verifier, unsigned) is Reason.TOKEN_INVALID


async def test_public_key_is_no_shared_secret(verifier: TokenVerifier) -> None:
    """HS256 with the bytes of a public key as the secret, the old trick, is refused; so is the set's symmetric key."""
    for kid, key in (("ec", EC_KEY), ("rsa", RSA_KEY)):
        public = key.public_key()
        for secret in (
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        ):
            unsigned = raw_token({"alg": "HS256", "kid": kid}, CLAIMS).rpartition(".")[0]
            signature = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
            forged = f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
            assert await reason_of(verifier, forged) is Reason.TOKEN_INVALID
    assert await reason_of(verifier, token("s" * 32, "HS256", header={"kid": "secret"})) is Reason.TOKEN_INVALID


async def test_algorithm_must_be_the_keys(verifier: TokenVerifier) -> None:
    """A token that names one key and is signed in the way of another is refused."""
    assert await reason_of(verifier, token(RSA_KEY, "RS256", header={"kid": "ec"})) is Reason.TOKEN_INVALID
    assert await reason_of(verifier, token(EC_KEY, "ES256", header={"kid": "rsa"})) is Reason.TOKEN_INVALID
    assert await reason_of(verifier, token(RSA_KEY, "PS256", header={"kid": "rsa"})) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "garbage",
    [
        "x",
        "..",
        "a.b.c",
        "é.é.é",
        "." * 5000,
        raw_token([], {}),
        raw_token({"alg": "ES256", "kid": ["ec"]}, CLAIMS),
        raw_token({"alg": "ES256", "kid": {"a": 1}}, CLAIMS),
        raw_token({"alg": "ES256", "kid": "ec", "crit": ["x"]}, CLAIMS),
        base64.urlsafe_b64encode(b"[" * 6000).decode() + ".e30.e30",
        base64.urlsafe_b64encode(b'{"kid":' * 1000).decode() + ".e30.e30",
        base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".e30.e30",
    ],
    ids=range(12),
)
async def test_garbage_is_refused(verifier: TokenVerifier, garbage: str) -> None:
    """Whatever stands where a token should, the answer is TOKEN_INVALID and no other error."""
    assert await reason_of(verifier, garbage) is Reason.TOKEN_INVALID


async def test_changed_token_is_refused(verifier: TokenVerifier) -> None:
    """A token whose claims were changed after signing is refused."""
    head, _, signature = token().split(".")
    other = raw_token({}, CLAIMS | {"sub": str(uuid.UUID(int=8))}).split(".")[1]
    assert await reason_of(verifier, f"{head}.{other}.{signature}") is Reason.TOKEN_INVALID


async def test_refusal_does_not_repeat_the_token(verifier: TokenVerifier) -> None:
    """What is told of a bad token holds nothing of it."""
    bad = token(sub="dr.jones")
    with pytest.raises(ServiceError) as caught:
        await verifier.verify(metadata(f"Bearer {bad}"))
    assert bad not in caught.value.message
    assert "jones" not in caught.value.message


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signature was checked, in order."""
    checked: list[str] = []
    decode = jwt.decode

    def counting(token: str, *arguments: Any, **options: Any) -> Any:
        checked.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(identity.jwt, "decode", counting)
    return checked


async def test_good_token_is_checked_once(verifier: TokenVerifier, checks: list[str]) -> None:
    """A token that was found good is not checked at each call, and one that differs by a letter is."""
    good = token()
    for _ in range(3):
        assert await verifier.verify(metadata(f"Bearer {good}")) == (USER, good)
    assert checks == [good]
    head, claims, signature = good.split(".")
    changed = f"{head}.{claims}.{signature[:-10]}{'A' * 10}"
    for _ in range(2):
        assert await reason_of(verifier, changed) is Reason.TOKEN_INVALID
    assert checks == [good, changed, changed]


async def test_remembered_token_expires(verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was good is TOKEN_EXPIRED from the moment on that it would be at its first use."""
    now = int(time.time())
    good = token(exp=now + 1 - CLOCK_SKEW_SECONDS)
    await verifier.verify(metadata(f"Bearer {good}"))
    monkeypatch.setattr(identity, "time", lambda: now + 0.9)
    await verifier.verify(metadata(f"Bearer {good}"))
    monkeypatch.undo()
    await asyncio.sleep(now + 1.01 - time.time())
    assert await reason_of(verifier, good) is Reason.TOKEN_EXPIRED


async def test_remembered_token_falls_with_its_key(
    verifier: TokenVerifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: list[str]
) -> None:
    """Once the set is read again, a token that was good is checked with the key of its id as it is now, if any."""
    good = token()
    bearer = metadata(f"Bearer {good}")
    await verifier.verify(bearer)

    async def read_again(content: dict[str, Any]) -> None:
        (tmp_path / "jwks.json").write_text(json.dumps(content))
        ahead = keys.monotonic() + 301
        monkeypatch.setattr(keys, "monotonic", lambda: ahead)

    await read_again(KEYS)
    await verifier.verify(bearer)
    assert checks == [good, good]
    await read_again({"keys": [{**ECAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True), "kid": "ec"}]})
    assert await reason_of(verifier, good) is Reason.TOKEN_INVALID
    await read_again({"keys": KEYS["keys"][1:]})
    assert await reason_of(verifier, good) is Reason.TOKEN_INVALID
    await read_again(KEYS)
    await verifier.verify(bearer)


async def test_only_so_many_tokens_are_remembered(
    verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch, checks: list[str]
) -> None:
    """Beyond a number of tokens the one that was not used for the longest is checked again, and so is a huge one."""
    monkeypatch.setattr(identity, "_REMEMBERED_TOKENS", 2)
    first, second, third, huge = token(n=1), token(n=2), token(n=3), token(n="x" * 5000)
    for one in (first, second, first, third, first, huge, huge, second):
        await verifier.verify(metadata(f"Bearer {one}"))
    assert checks == [first, second, third, huge, huge, second]


async def test_any_user_is_let_in_without_a_role() -> None:
    """The gatekeeper of a service without users makes the token's subject the caller."""
    caller = await AnyUser().admit("/x", USER, "t")
    assert (caller.user_id, caller.token, caller.role) == (USER, "t", "")
