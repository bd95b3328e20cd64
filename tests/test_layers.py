"""Data goes one way: the map in dclib/__init__.py is what the imports show."""

import ast
from pathlib import Path

import dclib

PACKAGE = Path(dclib.__file__).parent
ORDER = [
    name
    for line in dclib.__doc__.splitlines()
    if line.startswith("    ")
    for name in line.strip().split("   ")[0].split()
]
PLACE = {name: place for place, name in enumerate(ORDER)}
# What a function imports when it is called may lie further down: the command of dclib.train also
# trains the arms of an ablation and draws what came of them, that of dclib.scrape looks for
# shortcuts in what it gathered, and Apex, which patches torch, is read when it is chosen.
LATE = {
    ("train", "studies"),
    ("train", "plots"),
    ("scrape", "evaluation"),
    ("precision", "training"),
}


def owner(path):
    """The name on the map that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """(name on the map, whether at the top of the file) of everything of dclib in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("dclib.") for alias in node.names), path
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the package"
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "dclib":
            parts = node.module.split(".")
            names = parts[1:2] if len(parts) > 1 else [alias.name for alias in node.names]
            yield from ((name, node.col_offset == 0) for name in names if name != "__version__")


def test_the_map_names_every_module_once():
    there = {owner(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert sorted(ORDER) == sorted(there)


def test_no_import_points_back():
    back = set()
    for path in PACKAGE.rglob("*.py"):
        one = owner(path)
        for other, at_the_top in imports(path) if one != "__init__" else ():
            if PLACE[other] > PLACE[one]:
                assert not at_the_top, f"{path} imports {other}"
                back.add((one, other))
    assert back == LATE
