"""Imports go one way: the map in dclib/__init__.py is the order in which rooms use each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dclib

PACKAGE = Path(dclib.__file__).parent
LINES = [line for line in dclib.__doc__.splitlines() if line.startswith("    ")]
ORDER = [room for line in LINES for room in line.strip().partition("  ")[0].split()]
DOORS = {"plots", "neuron_plots", "panel", "panels", "__main__"}  # drawn, clicked, typed


def dotted(path):
    """The name of a file's module, such as dclib.data or dclib.data.loading."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {dotted(path): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """Every module of dclib that a file imports, at its top, in a function or for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: an import names the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "dclib":
                assert name.removeprefix("dclib.") not in dclib.__all__, f"{path}: {name} is lazy"
                yield name if name in FILES else name.rpartition(".")[0]


def room(module):
    return module.split(".")[1]


def is_door(module):
    """Whether it is one of a room: `dclib.plots` is a room by itself."""
    return module.count(".") == 2 and module.split(".")[2] in DOORS


@pytest.fixture(scope="module")
def graph():
    """{module: those that it imports}"""
    return {name: set(imports(path)) - {"dclib"} for name, path in FILES.items() if name != "dclib"}


def test_the_map_names_every_room_once(graph):
    assert sorted(ORDER) == sorted({room(module) for module in graph})


def test_no_import_points_back_not_even_a_late_one(graph):
    for module, used in graph.items():
        for other in used:
            assert ORDER.index(room(other)) <= ORDER.index(room(module)), (module, other)


def test_no_circle(graph):
    TopologicalSorter(graph).prepare()  # CycleError names the modules


def test_only_doors_import_doors(graph):
    for module, used in graph.items():
        assert is_door(module) or not any(map(is_door, used)), module
