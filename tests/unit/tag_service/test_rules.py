"""Every rule of reading (R) and editing (M) that the engine holds to has a test that names it."""

import ast
import re
from pathlib import Path

RULES = {*(f"R{number}" for number in range(1, 10)), *(f"M{number}" for number in range(1, 15))}


def test_each_rule_is_named_by_a_test():
    """The docstrings of the tests beside this one name all of the rules."""
    named = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                named |= set(re.findall(r"\b[RM]\d+\b", ast.get_docstring(node) or ""))
    assert RULES - named == set()
