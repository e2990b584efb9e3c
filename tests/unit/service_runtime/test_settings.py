import socket

import pytest
from pydantic import ValidationError

from service_runtime.server import _expect_free
from service_runtime.settings import RuntimeSettings, from_environment
from service_runtime.uploads import MIB

NEEDED = {"AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a", "AUTH_JWKS": "/k"}


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> RuntimeSettings:
    """The settings of this environment."""
    for name in RuntimeSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return RuntimeSettings()


def test_limits_are_in_the_units_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are set in MiB and enforced in bytes; the documented defaults hold where nothing is set."""
    limits = settings(monkeypatch, **NEEDED).upload_limits
    assert (limits.file_bytes, limits.request_bytes, limits.files) == (100 * MIB, 2048 * MIB, 500)
    given = {"MAX_DICOM_FILE_SIZE_MB": "1", "MAX_UPLOAD_SIZE_MB": "2", "MAX_DICOM_FILES_PER_UPLOAD": "3"}
    limits = settings(monkeypatch, **NEEDED, **given, UPLOAD_IDLE_SECONDS="4.5").upload_limits
    assert (limits.file_bytes, limits.request_bytes, limits.files, limits.idle_seconds) == (MIB, 2 * MIB, 3, 4.5)


@pytest.mark.parametrize("name", list(NEEDED))
def test_identity_must_be_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without issuer, audience or keys, or with empty ones, a service does not start."""
    with pytest.raises(ValidationError, match=name.lower()):
        settings(monkeypatch, **{**NEEDED, name: ""})
    with pytest.raises(ValidationError, match=name.lower()):
        settings(monkeypatch, **{key: value for key, value in NEEDED.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("WORKERS", "hunter2"),
        ("LOG_LEVEL", "loud"),
        ("LOG_LEVEL", "info\nx"),
        ("MAX_DICOM_FILE_SIZE_MB", "0"),
        ("UPLOAD_IDLE_SECONDS", "0"),
        ("UPLOAD_IDLE_SECONDS", "nan"),
        ("MAX_CONCURRENT_RPCS", "-1"),
        ("SHUTDOWN_GRACE_SECONDS", "-1"),
    ],
)
def test_setting_that_cannot_be_is_refused_by_name_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A value that makes no sense is an error that names the setting, and does not repeat what was set."""
    with pytest.raises(ValidationError, match=name.lower()) as caught:
        settings(monkeypatch, **NEEDED, **{name: value})
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_port_is_known_to_be_taken_whatever_form_the_address_has(address: str) -> None:
    """A port on which something listens is found taken, one on which nothing does is found free."""
    with socket.create_server((address, 0)) as taken:
        listen = f"{address}:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="in use"):
            _expect_free(listen)
    _expect_free(listen)


def test_a_process_with_wrong_settings_ends_with_a_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing or wrong is told by its variable's name, without a traceback and without what was set."""
    for name in RuntimeSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("WORKERS", "hunter2")
    monkeypatch.setenv("AUTH_ISSUER", "i")
    with pytest.raises(SystemExit) as ended:
        from_environment(RuntimeSettings)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert sorted(line.partition(":")[0] for line in told.splitlines()) == ["AUTH_AUDIENCE", "AUTH_JWKS", "WORKERS"]
    assert "hunter2" not in told
