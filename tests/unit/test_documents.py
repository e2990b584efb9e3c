"""The documents agree with the code: every setting with its default, every command of make, every link."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from deploy.local.process import ROOT
from pacs_gateway.settings import GatewaySettings
from service_runtime.settings import RuntimeSettings
from tag_service.settings import TagSettings

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SETTINGS: dict[str, tuple[type[BaseSettings], ...]] = {
    "Environment variables. Both services:": (RuntimeSettings,),
    "`pacs_gateway` besides:": (GatewaySettings, RuntimeSettings),
    "`tag_service` besides:": (TagSettings, RuntimeSettings),
}


def told(heading: str) -> dict[str, str]:
    """The settings of the table under a heading of README.md, each with the default that is told."""
    table = README.split(f"\n{heading}\n\n", 1)[1].split("\n\n", 1)[0]
    defaults: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        names, values = (cell.strip() for cell in row.split("|")[1:3])
        parts = values.split(", ")
        for position, name in enumerate(re.findall(r"`(\w+)`", names)):
            defaults[name] = parts[position] if len(parts) > 1 else values
    return defaults


@pytest.mark.parametrize("heading", SETTINGS)
def test_every_setting_is_told_with_its_default(heading: str) -> None:
    """README.md's tables name all settings that the services read, and no others, with the defaults in force."""
    settings, *others = SETTINGS[heading]
    shared = {name for other in others for name in other.model_fields}
    fields = {name.upper(): field for name, field in settings.model_fields.items() if name not in shared}
    defaults = told(heading)
    assert set(defaults) == set(fields)
    for name, field in fields.items():
        default = "must be set" if field.is_required() else field.get_default()
        if hasattr(default, "get_secret_value"):
            default = default.get_secret_value()
        assert defaults[name].strip("`") == (str(default) if default != "" else "none"), name


def test_every_target_of_make_is_told() -> None:
    """CONTRIBUTING.md has a row, or a word, for each target that `make help` lists."""
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text()))
    assert len(targets) > 10
    named = set(re.findall(r"`make ([a-z][a-z0-9-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert targets == named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Each link to a file of this repository names one that is there."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
