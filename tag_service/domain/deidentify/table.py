"""The basic profile: the action for each attribute of PS3.15 table E.1-1, edition 2026c.

The rows are the data of the package dicom-anonymizer, of which nothing else is used: its file of tables is loaded
alone, because importing the package would bring in a command line and a progress bar. Repeating groups (50xx, 60xx)
and private attributes, which the table gives as patterns, are rules of `actions`.
"""

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

_PACKAGE: Final = "dicomanonymizer"
_FILE: Final = "dicom_anonymization_databases/dicomfields_2026c.py"
# The package's names of what the table writes as X, Z, D, U, and as their alternatives (PS3.15 table E.1-1a).
_ACTIONS: Final = {
    "X_TAGS": "X",
    "Z_TAGS": "Z",
    "D_TAGS": "D",
    "U_TAGS": "U",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "Z_D_TAGS": "Z/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}


@cache
def basic_actions() -> Mapping[int, str]:
    """The action for each attribute by tag: X removes, Z empties, D puts a dummy, U another UID in place of the value.

    Raises ImportError where the package is not installed.
    """
    module = _load()
    actions: dict[int, str] = {}
    for name, action in _ACTIONS.items():
        for tag in getattr(module, name):
            if len(tag) == 2:
                group, element = tag
                actions[group << 16 | element] = action
    return MappingProxyType(actions)


def _load() -> object:
    package = importlib.util.find_spec(_PACKAGE)
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ImportError(f"{_PACKAGE} is not installed")
    spec = importlib.util.spec_from_file_location(f"{__name__}_rows", Path(folders[0]) / _FILE)
    if spec is None or spec.loader is None:
        raise ImportError(f"{_PACKAGE} has no {_FILE}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
