"""The fetcher against a local server: how it introduces itself, waits, retries and stops."""

import email.utils
import gzip
import io
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPResponse

import dclib
from dclib.scrape import fetch
from dclib.scrape.fetch import (
    CONNECTIONS,
    FAILURES,
    PATIENCE,
    PAUSE,
    Fetcher,
    FetchError,
    Hosts,
    read_body,
    seconds_to_wait,
    user_agent,
)
from dclib.scrape.gallery import Gallery
from dclib.scrape.guard import guarded_session
from dclib.scrape.sources import join


class Recording(Gallery):
    """Keeps the headers and times of all requests; `self.first` answers each path's first one."""

    def __init__(self, first=None):
        super().__init__(n=6)
        self.first, self.seen, self.times = first, [], []

    def answer(self, handler, path, query):
        self.seen.append((path, dict(handler.headers)))
        self.times.append((time.monotonic(), path))
        if self.first and path.startswith("/media") and self.asked[path] == 1:
            self.first(handler)
        else:
            super().answer(handler, path, query)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.01)


def make_fetcher(site, **options):
    return Fetcher("ada@uni.test", opening=site.opening, **({"rate": 1000} | options))


@pytest.mark.parametrize(
    "contact", ["", "me", "@", "ada@uni", "ada@example.org", "http://x", "a b@c.de", "zoë@uni.test"]
)
def test_a_contact_is_required(contact):
    with pytest.raises(ValueError, match="give your own e-mail address or web page"):
        Fetcher(contact)


def test_every_request_says_who_asks():
    with Recording() as site:
        make_fetcher(site).picture(f"{site.url}/media/1.jpg")
    first = ["/robots.txt", "/.well-known/tdmrep.json"]
    assert [path for path, _ in site.seen] == [*first, "/media/1.jpg"]
    for _, headers in site.seen:
        assert headers["User-Agent"].startswith(f"dclib/{dclib.__version__} (ada@uni.test) ")
        assert "Referer" not in headers
    assert user_agent(" https://uni.test/ada ").split()[1] == "(https://uni.test/ada)"


SPELLINGS = [*"/?#;@:$*a~'&=[|", " ", "\t", "\0", "\\", '"', "é", "//", ".", "..", "%zz"]
SPELLINGS += ["%2e", "%2E%2e", "%61", "%7e", "%c3%a9", "%2f"]


@given(st.lists(st.sampled_from(SPELLINGS), max_size=8).map("".join))
def test_the_address_that_is_judged_is_the_one_that_is_sent(spelled_site, link):
    site, session = spelled_site
    url = join("", f"{site.url}/{link}")
    if url.startswith(f"{site.url}/"):
        session.get(url, timeout=5)
        assert site.paths.pop() == url.removeprefix(site.url)


@pytest.fixture(scope="module")
def spelled_site():
    """A gallery that keeps the lines of its requests, and a session for it."""

    class Spelled(Gallery):
        def answer(self, handler, path, query):
            self.paths.append(handler.path)
            handler.send(b"")

    with Spelled(n=2) as site:
        site.paths = []
        yield site, guarded_session(site.opening)


def test_pages_may_come_packed_pictures_not_and_interfaces_are_not_asked_for_robots():
    with Recording() as site:
        fetcher = make_fetcher(site)
        page = fetcher.page(f"{site.url}/search?q=happy%20couple", api=True)
        assert [path for path, _ in site.seen] == ["/search"]
        assert page.headers["content-type"].startswith("text/html")
        fetcher.picture(f"{site.url}/media/1.jpg")
    asked = {path: headers["Accept-Encoding"] for path, headers in site.seen}
    assert (asked["/search"], asked["/media/1.jpg"]) == ("gzip", "identity")


def test_one_busy_answer_makes_every_thread_wait():
    """429 with Retry-After: 1 to one thread; the other threads' requests to this host wait too."""
    answered = threading.Event()

    def busy(handler):
        status, seconds = (503, "0") if answered.is_set() else (429, "1")
        answered.set()
        handler.send(b"", "text/plain", status, {"Retry-After": seconds})

    with Recording(busy) as site:
        fetcher = make_fetcher(site)
        fetcher.robots.rules(site.url)
        site.times.clear()
        postpone, heard = fetcher.hosts.postpone, threading.Event()
        fetcher.hosts.postpone = lambda *args: (postpone(*args), heard.set())
        with ThreadPoolExecutor(3) as threads:
            threads.submit(fetcher.picture, f"{site.url}/media/1.jpg")
            assert heard.wait(60)
            for i in (2, 3):
                threads.submit(fetcher.picture, f"{site.url}/media/{i}.jpg")
    start = site.times[0][0]
    assert all(moment - start > 0.95 for moment, _ in site.times[1:])
    assert len(site.times) == 6


def test_waits_grow_and_are_drawn_anew(monkeypatch):
    tops = []
    monkeypatch.setattr(fetch, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(fetch.random, "uniform", lambda low, top: tops.append(top) or 0.0)
    with Recording() as site:
        site.answer = lambda handler, path, _: handler.send(
            b"", "", 500 if "media" in path else 404
        )
        with pytest.raises(FetchError, match="http 500"):
            make_fetcher(site).picture(f"{site.url}/media/1.jpg")
    assert tops == [1.0, 2.0, 4.0]


def test_seconds_to_wait():
    assert (seconds_to_wait("7"), seconds_to_wait("9" * 400)) == (7, fetch.LONGEST_RETRY_AFTER)
    for nothing in (" 0 ", "-1", "1.5", "soon", "", None, "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert seconds_to_wait(nothing) == 0
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 < seconds_to_wait(date) <= 100


@given(st.text())
def test_seconds_to_wait_of_any_text(text):
    assert 0 <= seconds_to_wait(text) <= fetch.LONGEST_RETRY_AFTER


def response(body, **headers):
    answer = requests.Response()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer.raw = HTTPResponse(io.BytesIO(body), names, preload_content=False)
    return answer


@given(st.binary(max_size=5000), st.booleans(), st.integers(0, 5000))
def test_a_body_is_whole_or_refused(content, packed, cap):
    options = {"Content_Encoding": "gzip"} if packed else {}
    body = gzip.compress(content) if packed else content
    if len(content) <= cap:
        assert read_body(response(body, **options), cap) == content
    else:
        with pytest.raises(FetchError, match="too many bytes"):
            read_body(response(body, **options), cap)
    assert read_body(response(body, **options), cap, cut=True) == content[:cap]


def test_of_a_bomb_one_piece_is_unpacked():
    bomb = gzip.compress(bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(FetchError, match="too many bytes"):
        read_body(response(bomb, Content_Encoding="gzip"), 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000_000


def test_no_step_from_https_down_to_http():
    with pytest.raises(FetchError, match="from https to http"):
        fetch._redirected("https://a.org/b", "http://a.org/b")
    assert fetch._redirected("http://a.org/b", "//c.org/d") == "http://c.org/d"
    assert fetch._redirected("https://a.org/b/c", "../d?e") == "https://a.org/d?e"


def test_too_many_failures_stop_the_asking(monkeypatch):
    """A broken host is given up for a while instead of being asked for every picture."""
    with Recording() as site:
        fetcher = make_fetcher(site)
        fetcher.robots.rules(site.url)
        site.answer = lambda handler, path, query: handler.send(b"", "text/plain", 500)
        reasons = []
        for i in range(8):
            with pytest.raises(FetchError) as caught:
                fetcher.picture(f"{site.url}/media/{i}.jpg")
            reasons.append(caught.value.reason)
    assert reasons == ["http 500"] * 5 + ["host busy"] * 3


# ---- Limits per host, on a clock that only waiting moves


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


@pytest.fixture(scope="module")
def clock():
    """In place of the module time; every test asks hosts of its own."""
    clock, patch = Clock(), pytest.MonkeyPatch()
    patch.setattr(fetch, "time", clock)
    yield clock
    patch.undo()


def ask(hosts, clock, n, host="a.org"):
    """Times at which n requests in a row may start."""
    times = []
    for _ in range(n):
        with hosts.turn(host):
            times.append(clock.now)
    return times


@given(
    rate=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    pauses=st.lists(st.floats(0, 20), min_size=1, max_size=40),
)
def test_no_two_requests_come_closer_than_the_rate_allows(clock, rate, pauses):
    hosts, clock.now = Hosts(rate=rate), 1000.0
    times = []
    for pause in pauses:
        clock.now += pause
        times += ask(hosts, clock, 1)
    assert all(after - before > 1 / rate - 1e-6 for before, after in pairwise(times))
    start = clock.now = clock.now + 100
    hosts.slow_down("a.org", 20)
    hosts.slow_down("a.org", 0.1)  # never faster
    assert ask(hosts, clock, 3) == [start, start + 20, start + 40]


def test_nobody_waits_for_nothing_but_where_a_host_asks_to(clock):
    hosts, clock.now = Hosts(rate=2.0), 1000.0
    assert ask(hosts, clock, 3) == [1000, 1000.5, 1001]
    assert ask(hosts, clock, 1, "b.org") == [1001]
    hosts, clock.now = Hosts(rate=100), 1000.0
    hosts.postpone("a.org", 7)
    assert ask(hosts, clock, 1) == [1007]
    hosts.postpone("a.org", 5)
    hosts.postpone("a.org", 1)  # the longer wish counts
    assert ask(hosts, clock, 1, "b.org") == [1007]
    assert ask(hosts, clock, 1) == [1012]


def test_longer_than_our_patience(clock):
    hosts, clock.now = Hosts(), 1000.0
    hosts.postpone("a.org", PATIENCE + 1)
    with pytest.raises(FetchError, match="another 61 s"):
        ask(hosts, clock, 1)
    assert clock.now == 1000
    clock.now += 2
    assert ask(hosts, clock, 1) == [1000 + PATIENCE + 1]


def test_many_failures_in_a_row_give_a_host_a_rest(clock):
    hosts, clock.now = Hosts(), 1000.0
    for _ in range(FAILURES - 1):
        hosts.count("a.org", failed=True)
    hosts.count("a.org", failed=False)
    hosts.count("a.org", failed=True)
    ask(hosts, clock, 1)
    for _ in range(FAILURES - 1):
        hosts.count("a.org", failed=True)
    with pytest.raises(FetchError, match="host busy"):
        ask(hosts, clock, 1)
    clock.now += PAUSE
    ask(hosts, clock, 1)
    hosts.count("a.org", failed=True)  # still broken: at once another rest
    with pytest.raises(FetchError, match="host busy"):
        ask(hosts, clock, 1)


def test_few_at_once_to_one_host():
    hosts = Hosts(rate=1000)
    inside, counts = [], []
    full = threading.Barrier(CONNECTIONS)

    def request(_):
        with hosts.turn("a.org"):
            inside.append(1)
            counts.append(len(inside))
            full.wait(60)  # nobody leaves before so many are inside
            inside.pop()

    with ThreadPoolExecutor(4 * CONNECTIONS) as threads:
        list(threads.map(request, range(4 * CONNECTIONS)))
    assert max(counts) == CONNECTIONS
