"""Pictures of couples from the web: asked for politely, taken with licence, author and source."""

from importlib import import_module

from dclib.files import extra

with extra("scrape"):
    for _name in ("bs4", "lxml", "protego", "requests", "urllib3"):
        import_module(_name)
