"""robots.txt, opt-outs in headers and in files: what they say, and what it means when they fail."""

import json
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from dclib.scrape import fetch
from dclib.scrape.fetch import Fetcher, FetchError
from dclib.scrape.gallery import Gallery
from dclib.scrape.robots import (
    Robots,
    content_usage_rules,
    header_optout,
    reserved_locations,
)

SITE = "http://a.org"


def robots(text="", tdmrep=b"[]", status=200):
    """`Robots` over files that are given here; `.asked` lists what was read."""
    files = {"/robots.txt": (status, text.encode()), "/.well-known/tdmrep.json": (200, tdmrep)}
    asked = []

    def get(url):
        asked.append(url)
        return files[url.removeprefix(SITE)]

    found = Robots(get)
    found.asked = asked
    return found


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("", "/a.jpg", True),
        ("User-agent: *\nDisallow: /", "/a.jpg", False),
        ("User-agent: *\nDisallow:", "/a.jpg", True),
        ("User-agent: *\nAllow: /\nDisallow: /*.jpg$", "/a.jpg", False),  # the longest match wins
        ("User-agent: *\nAllow: /\nDisallow: /*.jpg$", "/a.jpg?b", True),
        ("User-agent: *\nDisallow: /p\nAllow: /public", "/public/a.jpg", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: dclib\nDisallow:", "/a.jpg", True),
        ("User-agent: *\nDisallow:\n\nUser-agent: dclib\nDisallow: /", "/a.jpg", False),
        ("\ufeffUser-agent: *\r\nDisallow: /a\r\n", "/a.jpg", False),
        ("<html><body>not found</body></html>", "/a.jpg", True),
        ("Disallow: /\nnonsense\x00", "/a.jpg", True),  # a rule without a group is none
        ("User-agent: *\nContent-Usage: train-ai=n", "/a.jpg", False),
        ("User-agent: *\nContent-Usage: /b train-ai=n", "/a.jpg", True),
        ("User-agent: *\nContent-Usage: /a*.jpg$ search=y, train-ai=n", "/abc.jpg", False),
    ],
)
def test_rules(text, path, allowed):
    refusal = robots(text).rules(SITE + path).refusal(SITE + path)
    assert (refusal is None) == allowed


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_no_robots_file_allows_everything(status):
    site = robots("User-agent: *\nDisallow: /", status=status)
    assert site.rules(SITE).refusal(f"{SITE}/a") is None


def test_read_once_a_day(monkeypatch):
    site, clock = robots(), SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr("dclib.scrape.robots.time", clock)
    for path in ("/a", "/b", "/c"):
        site.rules(SITE + path)
    assert len(site.asked) == 2
    clock.now += 24 * 3600 + 1
    site.rules(SITE)
    assert len(site.asked) == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("Crawl-delay: 3", 3),
        ("Crawl-delay: 99999", 30),
        ("Crawl-delay: abc", 0),
        ("Request-rate: 1/5s", 5),
        ("Crawl-delay: 2\nRequest-rate: 10/1s", 2),
    ],
)
def test_delay(text, seconds):
    assert robots(f"User-agent: *\n{text}").rules(SITE).delay() == seconds


@pytest.mark.parametrize(
    ("content", "locations"),
    [
        (b'[{"location": "/a/*", "tdm-reservation": 1}]', ["/a/*"]),
        (b'[{"location": "/a", "tdm-reservation": "1"}, {"location": "/b"}]', ["/a"]),
        (b'[{"location": "/a", "tdm-reservation": 0}]', []),
        (b'{"location": "/a", "tdm-reservation": 1}', []),
        (b"<html>", []),
        (b"\xff\xfe", []),
        (b"[" * 100_000, []),
    ],
)
def test_tdm_file(content, locations):
    assert reserved_locations(content) == locations
    path = f"{SITE}/a/b.jpg"
    assert (robots(tdmrep=content).rules(path).refusal(path) is not None) == bool(locations)


def headers(*pairs):
    found = HTTPHeaderDict()
    for name, value in pairs:
        found.add(name, value)
    return found


TAG = "X-Robots-Tag"


@pytest.mark.parametrize(
    ("name", "lines", "refused"),
    [
        (TAG, ["noai"], True),
        (TAG, ["all"], False),
        (TAG, ["nofollow, nosnippet"], False),
        (TAG, ["index, NOIMAGEAI"], True),
        (TAG, ["otherbot: noai"], False),
        (TAG, ["otherbot: noai, noindex"], False),
        (TAG, ["otherbot: noai, dclib: noindex"], True),
        (TAG, ["dclib: none"], True),
        (TAG, ["otherbot: all", "noml"], True),
        (TAG, ["noai, unavailable_after: 25 Jun 2010 15:00:00 PST"], True),
        (TAG, ["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], True),
        (TAG, ["max-image-preview: large, noindex"], True),
        (TAG, ["noai; noimageai"], True),
        (TAG, ["max-snippet:-1; rating: general,noai"], True),
        (TAG, ["noaim"], False),
        (TAG, [""], False),
        ("tdm-reservation", ["1"], True),
        ("TDM-Reservation", [" 1 "], True),
        ("tdm-reservation", ["0"], False),
        ("Content-Usage", ["train-ai=n"], True),
        ("Content-Usage", ["search=y, train-ai = n;a=1"], True),
        ("Content-Usage", ["train-ai=y"], False),
        ("Content-Usage", ["train-ai"], False),
    ],
)
def test_headers(name, lines, refused):
    assert bool(header_optout(headers(*((name, line) for line in lines)))) == refused


@given(st.text())
def test_no_text_breaks_the_readers(text):
    header_optout(headers(("X-Robots-Tag", text), ("Content-Usage", text)))
    content_usage_rules(text)
    robots(text.encode("utf-8", "replace").decode()).rules(SITE).refusal(f"{SITE}/a")


@given(st.text("ab/", max_size=6), st.text("ab/*", max_size=6), st.booleans())
def test_locations_match_as_file_names_do(path, pattern, ends):
    from fnmatch import fnmatchcase

    location = f"/{pattern}" + "$" * ends
    tdmrep = json.dumps([{"location": location, "tdm-reservation": 1}]).encode()
    url = f"{SITE}/{path.lstrip('/')}"
    closed = fnmatchcase(urlsplit(url).path, f"/{pattern}" + "*" * (not ends))
    assert (robots(tdmrep=tdmrep).rules(url).refusal(url) is not None) == closed


def test_no_pattern_takes_for_ever():
    assert content_usage_rules("\n" * 500_000) == []
    site = robots(f"User-agent: *\nContent-Usage: /{'*a' * 20}b train-ai=n")
    assert site.rules(SITE).refusal(f"{SITE}/{'a' * 2000}") is None
    assert site.rules(SITE).refusal(f"{SITE}/{'a' * 2000}b")


class Ill(Gallery):
    """A site whose robots.txt is what `self.robots` says: a status, or a function."""

    def answer(self, handler, path, query):
        if path == "/robots.txt":
            status, body, extra = self.robots
            handler.send(body, "text/plain", status, extra)
        else:
            super().answer(handler, path, query)


def make_fetcher(site):
    return Fetcher("ada@uni.test", rate=1000, opening=site.opening)


def test_the_delay_of_robots_txt_is_kept():
    with Ill(n=2) as site:
        site.robots = (200, b"User-agent: *\nCrawl-delay: 7", {})
        fetcher = make_fetcher(site)
        asked = []
        fetcher.hosts.slow_down = lambda *args: asked.append(args)
        fetcher.picture(f"{site.url}/media/1.jpg")
    assert asked == [(site.url.removeprefix("http://"), 7.0)]


def test_a_documented_interface_is_not_a_page_to_opt_out_of():
    class Api(Gallery):
        def answer(self, handler, path, query):
            handler.send(b"{}", "application/json", headers={"X-Robots-Tag": "noindex"})

    with Api(n=2) as site:
        fetcher = make_fetcher(site)
        assert fetcher.page(f"{site.url}/v1", api=True).content == b"{}"
        with pytest.raises(FetchError, match="opt-out"):
            fetcher.page(f"{site.url}/v1")


CLOSED = b"User-agent: *\nDisallow: /"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, b"", {}), None),
        ((403, CLOSED, {}), None),
        ((500, b"", {}), "robots.txt unknown"),
        ((501, b"", {}), "robots.txt unknown"),
        ((503, b"", {}), "robots.txt unknown"),
        ((521, b"", {}), "robots.txt unknown"),  # Cloudflare: the site itself is down
        ((429, b"", {"Retry-After": "999999"}), "robots.txt unknown"),
        ((301, b"", {"Location": "/robots.txt"}), None),  # a loop counts as "no file"
        ((302, b"", {"Location": "http://169.254.169.254/"}), "address not allowed"),
        ((200, CLOSED, {}), "robots.txt"),
        ((200, b"#" * 600_000 + b"\n" + CLOSED, {}), None),  # what comes after 500 KiB is not read
        ((200, CLOSED + b"\n" + b"#" * 10_000_000, {}), "robots.txt"),
    ],
)
def test_status_of_a_real_robots_file(monkeypatch, answer, reason):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.001)
    with Ill(n=2) as site:
        site.robots = answer
        fetcher = make_fetcher(site)
        if reason is None:
            assert fetcher.picture(f"{site.url}/media/1.jpg").content
            return
        with pytest.raises(FetchError) as caught:
            fetcher.picture(f"{site.url}/media/1.jpg")
        assert caught.value.reason == reason
        assert caught.value.later == (reason == "robots.txt unknown")
        assert not site.asked["/media/1.jpg"]
