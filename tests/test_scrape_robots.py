"""robots.txt by the words of RFC 9309, and what else closes addresses; what failures mean."""

import json
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dclib.scrape import fetch
from dclib.scrape.fetch import Fetcher, FetchError
from dclib.scrape.gallery import Gallery
from dclib.scrape.optouts import reserved_locations
from dclib.scrape.robots import Robots
from dclib.scrape.sources import join

SITE = "http://a.org"


def robots(text="", tdmrep=b"[]"):
    """`Robots` over files that are given here; `.asked` lists what was read."""
    text = text if isinstance(text, bytes) else text.encode()
    files = {"/robots.txt": (200, text), "/.well-known/tdmrep.json": (200, tdmrep)}
    asked = []

    def get(url):
        asked.append(url)
        return files[url.removeprefix(SITE)]

    found = Robots(get)
    found.asked = asked
    return found


ALL, US, OTHER = "User-agent: *\n", "User-agent: dclib\n", "User-agent: otherbot\n"
SHUT = "Disallow: /\n"
# (section of RFC 9309, robots.txt, path, whether it may be asked for)
RFC = [
    # 2.1 and 2.2: records, groups, and the grammar
    ("2.1", "", "/a", True),
    ("2.1", "<html><body>not found</body></html>", "/a", True),
    ("2.1", SHUT, "/a", True),  # a rule without a group is none
    ("2.1", ALL + SHUT, "/a", False),
    ("2.1", ALL + "Allow: /", "/a", True),
    ("2.2", ALL.replace("\n", "\r\n") + SHUT, "/a", False),
    ("2.2", ALL.replace("\n", "\r") + SHUT, "/a", False),
    ("2.2", ALL + SHUT.strip(), "/a", False),  # no end of line at the end of the file
    ("2.2", ALL + "\n\n" + SHUT, "/a", False),  # an empty line ends no group
    ("2.2", "user-AGENT:*\ndisALLOW:/", "/a", False),
    ("2.2", " \tUser-agent \t: \t* \t\n \tDisallow\t:\t/ ", "/a", False),
    ("2.2", "# x\nUser-agent: * # everybody\nDisallow: / # all", "/a", False),
    ("2.2", ALL + "Disallow: /#a", "/b", False),
    ("2.2", ALL + "Disallow: # nothing", "/a", True),
    ("2.2", ALL + "#Disallow: /", "/a", True),
    ("2.2", ALL + "Disallow:", "/a", True),
    ("2.2", ALL + "Disallow: \nAllow: /a", "/b", True),
    ("2.2", ALL + "nonsense\nDisallow\n: /\n" + "Disallow: /a", "/a", False),
    ("2.2", b"\xef\xbb\xbf" + (ALL + SHUT).encode(), "/a", False),
    ("2.2", ALL + "Disallow: /a\u2028Allow: /\u2028", "/a", True),  # of UTF-8, not an end of line
    ("2.2", ALL + "Disallow: /\u00e9", "/%C3%A9", False),
    ("2.2", ALL + "Disallow: /\u2603/\u00e9", "/\u2603/e", True),
    # 2.2.1: the user-agent line
    ("2.2.1", US + SHUT, "/a", False),
    ("2.2.1", OTHER + SHUT, "/a", True),
    ("2.2.1", "User-agent: DcLib\n" + SHUT, "/a", False),
    ("2.2.1", ALL + SHUT + US + "Disallow:", "/a", True),
    ("2.2.1", US + "Disallow:\n" + ALL + SHUT, "/a", True),  # whatever the order
    ("2.2.1", ALL + "Disallow:\n" + US + SHUT, "/a", False),
    ("2.2.1", ALL + "Disallow: /a\n" + US + "Disallow: /b", "/a", True),  # ours, not both
    ("2.2.1", US + "Disallow: /a\n" + OTHER + SHUT + US + "Disallow: /b", "/a", False),
    ("2.2.1", US + "Disallow: /a\n" + OTHER + SHUT + US + "Disallow: /b", "/b", False),
    ("2.2.1", ALL + "Disallow: /a\n" + OTHER + SHUT + ALL + "Disallow: /b", "/a", False),
    ("2.2.1", US + OTHER + SHUT, "/a", False),
    ("2.2.1", OTHER + US + SHUT, "/a", False),
    ("2.2.1", OTHER + ALL + SHUT, "/a", False),
    ("2.2.1", OTHER + "Disallow: /b\n" + US + SHUT, "/b", False),
    ("2.2.1", US + "Allow: /\n" + OTHER + SHUT, "/a", True),  # a rule ends the agents
    ("2.2.1", US + "Disallow:\n" + OTHER + SHUT, "/a", True),  # so does an empty one
    ("2.2.1", US, "/a", True),  # agents without a rule
    ("2.2.1", US + ALL + SHUT, "/a", False),
    ("2.2.1", "User-agent: dclib/0.1\n" + SHUT, "/a", False),  # a token ends at its last letter
    ("2.2.1", "User-agent: dclib bot\n" + SHUT, "/a", False),
    ("2.2.1", "User-agent: dclib2\n" + SHUT, "/a", False),
    ("2.2.1", "User-agent: dclib-image\n" + SHUT, "/a", True),  # another token
    ("2.2.1", "User-agent: my_dclib\n" + SHUT, "/a", True),
    ("2.2.1", "User-agent: dc\n" + SHUT, "/a", True),
    ("2.2.1", "User-agent: d\n" + SHUT + "User-agent: *\nAllow: /", "/a", True),
    # 2.2.2: allow and disallow
    ("2.2.2", ALL + "Disallow: /a", "/abc", False),
    ("2.2.2", ALL + "Disallow: /a/", "/a", True),
    ("2.2.2", ALL + "Disallow: /A", "/a", True),  # paths have a case
    ("2.2.2", ALL + "Disallow: /p\nAllow: /public", "/public/a", True),  # the most octets
    ("2.2.2", ALL + "Allow: /p\nDisallow: /public", "/public/a", False),
    ("2.2.2", ALL + "Allow: /\nDisallow: /*.jpg$", "/a.jpg", False),
    ("2.2.2", ALL + "Disallow: /a\nAllow: /a", "/a", True),  # as many: allow
    ("2.2.2", ALL + "Allow: /a\nDisallow: /a", "/a", True),
    ("2.2.2", ALL + SHUT, "/robots.txt", True),
    ("2.2.2", ALL + "Disallow: /a?b", "/a?b=c", False),
    ("2.2.2", ALL + "Disallow: /a?b", "/a?c", True),
    ("2.2.2", ALL + "Disallow: /foo/bar/\u30c4", "/foo/bar/%E3%83%84", False),  # its own example
    ("2.2.2", ALL + "Disallow: /foo/bar/%E3%83%84", "/foo/bar/\u30c4", False),
    ("2.2.2", ALL + "Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
    ("2.2.2", ALL + "Disallow: /foo/bar/baz", "/foo/bar/%62%61%7A", False),
    ("2.2.2", ALL + "Disallow: /%7eann", "/~ann", False),
    ("2.2.2", ALL + "Disallow: /%7Eann", "/%7eann", False),
    ("2.2.2", ALL + "Disallow: /a%2fb", "/a%2Fb", False),
    ("2.2.2", ALL + "Disallow: /a/b", "/a%2Fb", True),  # a reserved character and its escape differ
    ("2.2.2", ALL + "Disallow: /a%3Cd", "/a%3cd", False),
    ("2.2.2", ALL + "Disallow: /x/\nAllow: /x/index.html", "/x/", False),
    ("2.2.2", ALL + "Disallow: /x/\nAllow: /x/index.html", "/x/index.html", True),
    # 2.2.3: special characters
    ("2.2.3", ALL + "Disallow: *", "/a", False),
    ("2.2.3", ALL + "Disallow: /*/c", "/a/b/cd", False),
    ("2.2.3", ALL + "Disallow: /a*", "/a", False),
    ("2.2.3", ALL + "Disallow: /a***b", "/axxb", False),
    ("2.2.3", ALL + "Disallow: /a$", "/a", False),
    ("2.2.3", ALL + "Disallow: /a$", "/ab", True),
    ("2.2.3", ALL + "Disallow: /*.gif$", "/a.gif?b", True),
    ("2.2.3", ALL + "Disallow: /*a*a$", "/xaya", False),
    ("2.2.3", ALL + "Disallow: /this/path/exactly$", "/this/path/exactly/b", True),
    ("2.2.3", ALL + "Disallow: /a-%2A.html", "/a-*.html", False),
    ("2.2.3", ALL + "Disallow: /a-%2A.html", "/a-b.html", True),
    ("2.2.3", ALL + "Disallow: /a-%24", "/a-$", False),
    ("2.2.3", ALL + "Disallow: /a-%24", "/a-", True),
    # 2.2.4: other records do not interfere
    ("2.2.4", OTHER + "Crawl-delay: 1\n" + US + SHUT, "/a", False),
    ("2.2.4", US + "Crawl-delay: 1\n" + OTHER + SHUT, "/a", False),
    ("2.2.4", US + "Content-Signal: search=yes\n" + OTHER + SHUT, "/a", False),
    ("2.2.4", US + "Sitemap: http://a.org/s.xml\n" + OTHER + SHUT, "/a", False),
    ("2.2.4", US + "Host: a.org\nVisit-time: 0600-0845\nx: y\n" + OTHER + SHUT, "/a", False),
    ("2.2.4", US + "Request-rate: 1/5s\n" + OTHER + SHUT, "/a", False),
    ("2.2.4", ALL + "Disallow: /a\nSitemap: s\nDisallow: /b", "/b", False),
    # Where we refuse more than the RFC asks for: what is close to a no is one.
    ("beyond", ALL + "Disallow: a", "/a", False),  # no slash: not in its grammar
    ("beyond", ALL + "Disallow: http://a.org/a", "/a", False),
    ("beyond", ALL + "Disallow /", "/a", False),  # no colon
    ("beyond", "User agent: *\nDisalow: /", "/a", False),
    ("beyond", "User-agent: otherbot, dclib\n" + SHUT, "/a", False),
    ("beyond", "User-agent: Mozilla/5.0 (compatible; dclib/0.1)\n" + SHUT, "/a", False),
    ("beyond", ALL + "Disallow: /a!b", "/a%21b", False),  # Protego takes both for one
    ("beyond", ALL + "Disallow: /a b", "/a%20b", False),
    ("beyond", ALL + "Disallow: //a", "/a", False),  # requests would send this as /a too
    ("beyond", (ALL + SHUT).encode("utf-16"), "/a", False),  # not UTF-8
    ("beyond", (ALL + SHUT).encode("utf-16-le"), "/a", False),
    ("beyond", ALL.encode() + b"Disallow: /caf\xe9", "/caf%e9", False),
    ("beyond", b"User-agent: dclib\0\n" + SHUT.encode(), "/a", False),
    ("beyond", ALL + "Crawl-delay: 61", "/a", False),  # longer than we wait
    ("beyond", US + "Request-rate: 1/2m", "/a", False),
]


@pytest.mark.parametrize(("section", "text", "path", "allowed"), RFC)
def test_robots_txt_by_the_words_of_its_rfc(section, text, path, allowed):
    url = join(SITE, path)
    assert (robots(text).rules(url).refusal(url) is None) == allowed, section


@pytest.mark.parametrize(
    "path",
    ["/x/../p/a", "/x/%2e%2E/p/a", "//p/a", "/%70/a", "/./p/a", "/\\p\\a", "/\tp/a", "/p/a#x"],
)
@pytest.mark.parametrize("pattern", ["/p/", "/%70/", "//p/", "/*/a$", "/p%2fa"])
def test_what_is_judged_is_what_is_sent(path, pattern):
    """However a link or a rule spells a path: both come to one form."""
    closed = pattern != "/p%2fa" and (pattern != "/*/a$" or join("", SITE + path) == f"{SITE}/p/a")
    url = join("", SITE + path)
    rules = robots(f"{ALL}Disallow: {pattern}").rules(url)
    assert (rules.refusal(url) is not None) == closed


@pytest.mark.parametrize(
    ("line", "path", "allowed"),
    [
        ("Content-Usage: train-ai=n", "/a.jpg", False),
        ("Content-Usage: /b train-ai=n", "/a.jpg", True),
        ("Content-Usage: /a*.jpg$ search=y, train-ai=n", "/abc.jpg", False),
        ("Content-Usage: TRAIN-AI = N", "/a", False),
        ("content-usage : train-ai=?0", "/a", False),
        ('Content-Usage: train-ai="n";x=1', "/a", False),
        ("Content-Usage: train-genai=n", "/a", False),
        ("Content-Usage: tdm=n", "/a", False),
        ("Content-Usage: train-ai=y, search=n", "/a", True),
        ("Content-Usage: train-ai=y train-ai=n", "/a", False),
        ("Content-Signal: search=yes,ai-train=no", "/a", False),  # as Cloudflare writes it
        ("Content-Signal: search=yes, ai-train=no, use=reference", "/a", False),
        ("Content-signal: ai_train: NO", "/a", False),
        ("Content-Signals: ai-training=false", "/a", False),
        ("Content-Signal: /b/ ai-train=no", "/b/a", False),
        ("Content-Signal: /b/ ai-train=no", "/a", True),
        ("Content-Signal: ai-train=yes, ai-input=no, search=no", "/a", True),  # other uses
        ("Content-Signal: ai-train=no # a comment", "/a", False),
        ("# Content-Signal: ai-train=no", "/a", True),
        ("DisallowAITraining: /a", "/a", False),
        ("Noindex: /a", "/a", False),
        ("Noindex:", "/a", True),
    ],
)
@pytest.mark.parametrize("agent", [ALL, OTHER, ""])
def test_lines_that_close_to_training(agent, line, path, allowed):
    """Of every group: the drafts are young."""
    refusal = robots(f"{agent}{line}\nAllow: /").rules(SITE).refusal(SITE + path)
    closed = ("opt-out", "robots.txt closes this address to training")
    assert refusal == (None if allowed else closed)


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
        ("Crawl-delay: 120", 120),
        ("Crawl-delay: 2,5 s", 2.5),
        ("Crawl-delay: 1e9", 1e9),
        ("Crawl-delay: abc", 0),
        ("Crawl-delay: inf", 0),
        ("Request-rate: 1/5s", 5),
        ("Crawl-delay: 2\nRequest-rate: 10/1s", 2),
    ],
)
def test_delay(text, seconds):
    assert robots(f"User-agent: *\n{text}").rules(SITE).delay() == seconds


def test_a_site_that_asks_for_long_pauses_is_left_alone_in_words():
    reason, detail = robots(f"{ALL}Crawl-delay: 120").rules(SITE).refusal(SITE)
    assert (reason, detail) == ("robots.txt", "it asks for 120 s a request; we wait 60 s")


@pytest.mark.parametrize(
    ("content", "locations"),
    [
        (b'[{"location": "/a/*", "tdm-reservation": 1}]', ["/a/*"]),
        (b'[{"location": "/a", "tdm-reservation": "1"}, {"location": "/b"}]', ["/a"]),
        (b'[{"location": "/a", "tdm-reservation": 0}]', []),
        (b'{"location": "/a", "tdm-reservation": 1}', ["/a"]),  # a list of one, forgotten
        (b'\xef\xbb\xbf[{"location": "/a", "TDM_Reservation": true,},];', ["/a"]),
        (b'[{"location": ["/a", "/b"], "tdm-reservation": "yes"}]', ["/a", "/b"]),
        (b'[{"location": "http://a.org/a", "tdm-reservation": 1.0}]', ["http://a.org/a"]),
        (b'[{"location": "a/*", "tdm-reservation": 1}]', ["a/*"]),
        (b'[{"tdm-reservation": 1}]', ["/"]),
        (b'[{"location": 3, "tdm-reservation": 1}, 7, null]', ["/"]),
        (b'[{"location": "/a", "tdm-reservation": false}]', []),
        (b"<html>", []),
        (b"\xff\xfe", []),
        (b"[" * 100_000, []),
    ],
)
def test_tdm_file(content, locations):
    assert reserved_locations(content) == locations
    path = f"{SITE}/a/b.jpg"
    assert (robots(tdmrep=content).rules(path).refusal(path) is not None) == bool(locations)


@given(st.text() | st.lists(st.sampled_from([ALL, US, "\r", "Crawl-delay:", "/", "%", "$"])))
def test_no_text_breaks_the_reader(text):
    text = "".join(text).encode("utf-8", "replace")
    robots(text, tdmrep=text).rules(SITE).refusal(f"{SITE}/a")


@given(st.text("ab/", max_size=6), st.text("ab/*", max_size=6), st.booleans())
def test_locations_match_as_file_names_do(path, pattern, ends):
    from fnmatch import fnmatchcase

    location = f"/{pattern.lstrip('/')}" + "$" * ends
    tdmrep = json.dumps([{"location": location, "tdm-reservation": 1}]).encode()
    url = f"{SITE}/{path.lstrip('/')}"
    closed = fnmatchcase(urlsplit(url).path, location.removesuffix("$") + "*" * (not ends))
    assert (robots(tdmrep=tdmrep).rules(url).refusal(url) is not None) == closed


def test_no_pattern_takes_for_ever():
    for text in ("\n" * 500_000, " \t" * 250_000, US * 30_000, f"{US}Crawl-delay: 1\n" * 15_000):
        assert robots(text).rules(SITE).refusal(SITE) is None
    site = robots("User-agent: *\nContent-Usage: /*a*b train-ai=n")
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
        *(((status, CLOSED, {}), None) for status in (400, 401, 403, 404, 410, 451)),
        # 521 is Cloudflare's: the site itself is down
        *(((status, b"", {}), "robots.txt unknown") for status in (500, 501, 503, 521)),
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
