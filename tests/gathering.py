"""Collections from galleries of drawn couples, as fast as this computer can; for tests only."""

from dclib.data import DRAWN
from dclib.scrape.collect import collect, make_plan
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT
from dclib.scrape.html import HtmlGallery
from dclib.scrape.sources import Listing


def gather(site, folder, plan=None, **options):
    """Rows of what a plan asks of a gallery, or else of everything in it."""
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    plan = plan or make_plan((HtmlGallery(name=DRAWN), site.queries))
    return collect(folder, plan, fetcher, progress=False, **options)


class Listed:
    """A source with pages given here: address -> candidates, (candidates, next) or an exception."""

    api, pace = True, 0.0

    def __init__(self, site, pages, name="listed"):
        self.site, self.pages, self.name = site, pages, name

    def start(self, text):
        return f"{self.site.url}/search?q={text}"

    def parse(self, page):
        answer = self.pages[page.url.partition("q=")[2]]
        if isinstance(answer, Exception):
            raise answer
        candidates, following = answer if isinstance(answer, tuple) else (answer, None)
        return Listing(candidates, following and self.start(following))

    def plan(self, happy="a", unhappy=""):
        """One letter a query."""
        texts = [("happy", text) for text in happy] + [("unhappy", text) for text in unhappy]
        return [(self, label, text) for label, text in texts]
