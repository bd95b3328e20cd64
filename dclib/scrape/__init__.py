"""Pictures of couples from the web: asked for politely, taken with licence, author and source."""

from importlib import import_module

try:
    for _name in ("bs4", "idna", "lxml", "protego", "requests", "urllib3"):
        import_module(_name)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error.name} is missing: install the extra that brings it, "
        "`pip install 'deepconnection[scrape]'`."
    ) from error
