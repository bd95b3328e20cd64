"""Without the optional packages every module imports, or names the extra that it needs."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement

from dclib.files import extra

OURS = "deepconnection"
IMPORT_ALL = """
import importlib, json, pkgutil, sys

sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # None: cannot be imported
import dclib

said = {}
for module in pkgutil.walk_packages(dclib.__path__, "dclib.", onerror=lambda name: None):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        said[module.name] = str(error)
print(json.dumps(said))
"""


def distributions(name, extras=()):
    """All that installing a package brings, itself included."""
    found, todo = set(), {(name, frozenset(extras))}
    while todo:
        name, extras = todo.pop()
        found.add((name, extras))
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker and not any(
                requirement.marker.evaluate({"extra": wanted}) for wanted in extras or {""}
            ):
                continue
            todo |= {(requirement.name, frozenset(requirement.extras))} - found
    return {re.sub(r"[-_.]+", "-", name).lower() for name, _ in found}


def test_every_module_names_the_extra_that_brings_what_it_misses():
    modules = {
        module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
        for module, names in packages_distributions().items()
    }
    core, everything = distributions(OURS), distributions(OURS, ["notebooks"])
    hidden = [name for name, by in modules.items() if by & everything and not by & core]
    assert {"pandas", "sklearn", "matplotlib", "cv2", "av", "bs4", "ipywidgets"} <= set(hidden)
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(hidden)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert {"dclib.evaluate.metrics", "dclib.plots", "dclib.frames", "dclib.scrape"} <= set(said)
    assert not {"dclib.train", "dclib.model", "dclib.explain.evidence", "dclib.checkpoint"} & set(
        said
    )
    for module, sentence in said.items():
        match = re.fullmatch(r"(\w+)[.\w]* is missing: .*\[(\w+)\]'`.*", sentence)
        assert match, f"{module}: {sentence}"
        missing, name = match.groups()
        assert modules[missing] & distributions(OURS, [name]), f"{module}: {sentence}"


def test_other_errors_pass():
    with pytest.raises(ImportError, match="cannot import name"), extra("plots"):
        from json import nothing_of_this_name  # noqa: F401
