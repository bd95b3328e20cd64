"""Data goes one way: the map in dclib/__init__.py is what the imports show."""

import ast
from graphlib import TopologicalSorter
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
DOORS = {"plots", "panel", "panels", "__main__"}  # of a room: what is drawn, clicked and typed


def module_of(path):
    """A file of the package as what follows "dclib." in its name, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """Every module of dclib that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("dclib.") for alias in node.names), path
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the package"
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "dclib":
            module = node.module.removeprefix("dclib").strip(".")
            inner = {alias.name: f"{module}.{alias.name}".strip(".") for alias in node.names}
            yield from (inner[name] if inner[name] in MODULES else module for name in inner)


GRAPH = {module: set(imports(path)) - {""} for module, path in MODULES.items() if module}


def test_the_map_names_every_module_once():
    assert sorted(ORDER) == sorted({module.split(".")[0] for module in GRAPH})


def test_no_import_points_back_not_even_a_late_one():
    for module, others in GRAPH.items():
        for other in others:
            assert PLACE[other.split(".")[0]] <= PLACE[module.split(".")[0]], (module, other)


def test_no_circle():
    within = {module: others - {module.split(".")[0], module} for module, others in GRAPH.items()}
    TopologicalSorter(within).prepare()  # CycleError names the modules


def test_nothing_in_a_room_imports_its_doors():
    for module, others in GRAPH.items():
        doors = {other for other in others if other.split(".")[-1] in DOORS and "." in other}
        assert not doors or module.split(".")[-1] in DOORS | {"neuron_plots"}, (module, doors)
