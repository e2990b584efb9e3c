"""The commands of the client, as far as they need no gateway: how they end, and what they say then."""

from pathlib import Path
from typing import Any

import pytest
import typer

from pacs_gateway.cli import __main__ as command
from pacs_gateway.cli.outcomes import NOT_POSSIBLE, SOME_FAILED, Outcome
from pacs_gateway.cli.sending import NotPossibleError, Sending, Target


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), SOME_FAILED, "Run it again"),
        (NotPossibleError("TOKEN_EXPIRED: \x1b[2J[bold]get one"), NOT_POSSIBLE, "[bold]get one"),
    ],
)
def test_what_was_done_is_shown_however_it_ends(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    """Broken off by its user, or by a refusal, the command says what is stored so far, and ends with its status."""

    async def send(_gateway: Any, _moved: Any, told: Any) -> None:
        told(Outcome("a.dcm", "stored", study_uid="1.2.3"))
        raise error

    with pytest.raises(typer.Exit) as ended:
        command._run(Target("localhost:1", "t"), Sending(), send, size_bytes=1, show_patients=False, show_all=False)
    out, err = capsys.readouterr()
    assert ended.value.exit_code == status
    assert out.splitlines()[-1] == "1 stored"
    assert said in err
    assert "\x1b[2J" not in err


@pytest.mark.parametrize("given", [{"token": "a"}, {"token_file": "b"}])
def test_a_token_is_given_or_read(tmp_path: Path, given: dict[str, str]) -> None:
    """The token of a file goes without its line end; without any there is nothing to do. A CA means TLS."""
    (tmp_path / "file").write_text("b\n")
    file = tmp_path / "file" if "token_file" in given else None
    target = command._target("host:1", given.get("token", ""), file, tmp_path / "ca", tls=False)
    assert (target.token, target.tls) == (next(iter(given.values())), True)
    with pytest.raises(typer.Exit) as ended:
        command._target("host:1", "", None, None, tls=False)
    assert ended.value.exit_code == NOT_POSSIBLE
