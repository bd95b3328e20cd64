"""A collection from a gallery of drawn couples, as fast as this computer can; for tests only."""

from dclib.data import DRAWN
from dclib.scrape.collect import collect, make_plan
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT
from dclib.scrape.html import HtmlGallery


def gather(site, folder, plan=None, **options):
    """Rows of what a plan asks of a gallery, or else of everything in it."""
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    plan = plan or make_plan((HtmlGallery(name=DRAWN), site.queries))
    return collect(folder, plan, fetcher, progress=False, **options)
