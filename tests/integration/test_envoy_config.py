"""Envoy's files: Envoy itself takes them in every environment, and they agree with themselves and with the protos."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2

from deploy.local.envoy import FILES, binary, render
from deploy.local.keys import development_key
from deploy.local.process import ROOT, PartError
from ris.errors.v1 import error_reason_pb2

assert error_details_pb2  # unpacking an Any needs its type to be imported
ENVIRONMENTS = sorted(path.stem for path in (FILES / "clusters").glob("*.yaml"))
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Everything that the files leave open."""
    return {
        "ENVOY_CLUSTERS": str(tmp_path / "clusters.yaml"),
        "ENVOY_DESCRIPTORS": str(ROOT / "generated" / "envoy.binpb"),
        "AUTH_JWKS": str(development_key(tmp_path).jwks),
        "AUTH_ISSUER": "https://issuer.example/",
        "AUTH_AUDIENCE": "audience",
        "CORS_ORIGINS": "https://ris.example,http://localhost:3000",
    }


def validate(config: dict[str, Any], path: Path) -> None:
    """Has Envoy check the configuration, and fails with what it says."""
    path.write_text(yaml.safe_dump(config))
    command = [str(binary()), "--mode", "validate", "--log-level", "warning", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def mappers(settings: dict[str, str]) -> list[dict[str, Any]]:
    """How Envoy words its own errors."""
    config = yaml.safe_load(render(FILES / "envoy.yaml", settings))
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    found: list[dict[str, Any]] = chain["filters"][0]["typed_config"]["local_reply_config"]["mappers"]
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_envoy_takes_the_files_of_every_environment(environment: str, settings: dict[str, str], tmp_path: Path) -> None:
    """Envoy takes envoy.yaml with the clusters of each environment."""
    clusters = render(FILES / "clusters" / f"{environment}.yaml", settings)
    (tmp_path / "clusters.yaml").write_text(clusters)
    config = yaml.safe_load(render(FILES / "envoy.yaml", settings))
    # `validate` does not open the file that clusters are discovered in, so they are put into the configuration too.
    config["static_resources"]["clusters"] = [
        {name: value for name, value in cluster.items() if name != "@type"}
        for cluster in yaml.safe_load(clusters)["resources"]
    ]
    validate(config, tmp_path / "envoy.yaml")


def test_there_is_an_environment_for_this_machine_and_for_containers() -> None:
    """The local stack and the containers each have their clusters, and both name the same two."""
    assert {"local", "compose"} <= set(ENVIRONMENTS)
    for environment in ENVIRONMENTS:
        text = (FILES / "clusters" / f"{environment}.yaml").read_text()
        assert [line.split()[-1] for line in text.splitlines() if line.startswith("    name: ")] == [
            "tag_service",
            "pacs_gateway",
        ]


@pytest.mark.parametrize("value", ['a"b', "a'b", "a!b", "a\nb", "a{b"])
def test_a_value_that_would_change_the_files_is_refused(value: str, settings: dict[str, str]) -> None:
    """A setting with a character that means something to YAML or sed never gets into the files."""
    with pytest.raises(PartError, match="AUTH_ISSUER holds a character"):
        render(FILES / "envoy.yaml", settings | {"AUTH_ISSUER": value})


def test_a_missing_setting_is_named(settings: dict[str, str]) -> None:
    """A setting that has no default and is not given is told by its name."""
    del settings["AUTH_AUDIENCE"]
    with pytest.raises(PartError, match="AUTH_AUDIENCE is not set"):
        render(FILES / "envoy.yaml", settings)


def test_every_reason_is_one_of_the_protos(settings: dict[str, str]) -> None:
    """Envoy's own errors use the reasons of ris.errors.v1.ErrorReason and no others."""
    reasons = {
        detail["reason"]
        for mapper in mappers(settings)
        for detail in mapper["body_format_override"].get("json_format", {}).get("details", [])
        if detail["@type"] == ERROR_INFO
    }
    assert reasons
    assert {f"ERROR_REASON_{reason}" for reason in reasons} <= set(error_reason_pb2.ErrorReason.keys())


def test_grpc_details_say_what_json_says(settings: dict[str, str]) -> None:
    """The serialised status that gRPC callers get is the one that JSON callers get, but for the code of overload: Envoy
    itself cannot say RESOURCE_EXHAUSTED to a gRPC caller, and a status must have the code of its call.
    """
    found = mappers(settings)
    in_json = {
        override["json_format"]["message"]: override["json_format"]
        for override in (mapper["body_format_override"] for mapper in found)
        if "json_format" in override
    }
    told = [mapper for mapper in found if "headers_to_add" in mapper]
    for_grpc = [mapper for mapper in told if "json_format" not in mapper["body_format_override"]]
    assert for_grpc
    for mapper in for_grpc:
        (added,) = mapper["headers_to_add"]
        assert added["header"]["key"] == "grpc-status-details-bin"
        status = status_pb2.Status.FromString(base64.b64decode(added["header"]["value"]))
        assert status.message == mapper["body_format_override"]["text_format_source"]["inline_string"]
        twin = in_json[status.message]
        for detail in twin["details"]:
            detail.pop("metadata", None)  # empty
        code = 14 if twin["code"] == 8 else twin["code"]
        assert MessageToDict(status) == {**twin, "code": code}
