"""What notebooks and strangers call, as a list: it changes on purpose or not at all.

After a change that is meant: python tests/test_api.py
"""

import ast
import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
SNAPSHOT = Path(__file__).with_name("api.txt")


def sources():
    """The code of each notebook, and of each example of data/README.md."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        yield "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    page = (ROOT / "data" / "README.md").read_text()
    yield from re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def used():
    """(module, name) of everything of dclib that they import or reach through a module."""
    found = set()
    for source in sources():
        tree, modules = list(ast.walk(ast.parse(source))), {}
        for node in tree:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dclib":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    if importlib.util.find_spec(node.module).submodule_search_locations and (
                        importlib.util.find_spec(inner)
                    ):
                        modules[alias.asname or alias.name] = inner
                    else:
                        found.add((node.module, alias.name))
        for node in tree:
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
                found.add((modules[node.value.id], node.attr))
    return sorted(found)


def describe(module, name):
    """`name(parameters)`; of a class also its fields and public methods, a line each."""
    thing = getattr(importlib.import_module(module), name)
    title = f"{module}.{name}"
    if not callable(thing):
        return [title]
    if not inspect.isclass(thing):
        return [f"{title}{bare(thing)}"]
    fields = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    lines = [f"{title}{'' if fields else bare(thing.__init__)}"]
    lines += [f"{title}.{field}" for field in fields]
    for attribute, value in vars(thing).items():
        if not attribute.startswith("_") and attribute not in fields:
            inner = getattr(value, "__func__", value)
            lines.append(f"{title}.{attribute}{bare(inner) if inspect.isfunction(inner) else ''}")
    return lines


def bare(function):
    """The signature without types: names, kinds and defaults."""
    signature = inspect.signature(inspect.unwrap(function))
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    plain = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return re.sub(r" at 0x[0-9a-f]+", "", str(plain))


def surface():
    return "\n".join(line for names in used() for line in describe(*names)) + "\n"


def test_api_is_the_one_in_the_list():
    assert surface() == SNAPSHOT.read_text(), "if this is meant: python tests/test_api.py"


def test_everything_in_it_is_explained():
    for module, name in used():
        thing = getattr(importlib.import_module(module), name)
        if callable(thing):
            told = inspect.getdoc(thing) or ""
            assert told and not told.startswith(f"{name}("), f"{module}.{name}"  # a dataclass's own
        for inner, value in vars(thing).items() if inspect.isclass(thing) else ():
            if inspect.isfunction(value) or isinstance(value, property):
                assert inner.startswith("_") or inspect.getdoc(value), f"{module}.{name}.{inner}"


if __name__ == "__main__":
    SNAPSHOT.write_text(surface())
