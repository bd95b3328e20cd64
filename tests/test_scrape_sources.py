"""Openverse, Commons, queries and addresses, on answers made by hand to the documented shapes."""

import json
import os
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dclib.scrape.html import HtmlGallery
from dclib.scrape.openverse import Commons, Openverse
from dclib.scrape.queries import load_queries
from dclib.scrape.sources import Listing, Page, SourceError, identity, join, plain_text, series_of

ROOT = Path(__file__).parents[1]
OPENVERSE, COMMONS = Openverse(), Commons()

# Made by hand to the shape of https://api.openverse.org/v1/images/, not recorded.
RESULT = {
    "id": "5b4f8a2e-0000-4000-8000-000000000001",
    "title": "Couple at the <b>lake</b> 2",
    "foreign_landing_url": "https://www.flickr.com/photos/anna/1",
    "url": "https://live.staticflickr.com/1/2_b.jpg",
    "creator": "<i>Anna</i> &amp; Co",
    "creator_url": "https://www.flickr.com/photos/anna",
    "license": "by-sa",
    "license_version": "2.0",
    "license_url": "https://creativecommons.org/licenses/by-sa/2.0/",
    "category": None,
    "filetype": None,
    "mature": False,
    "unstable__sensitivity": [],
}

# Made by hand to the shape of https://commons.wikimedia.org/w/api.php, not recorded.
META = {
    "ObjectName": {"value": "Ben and Cleo 01", "source": "mediawiki-metadata"},
    "DateTimeOriginal": {"value": "2019-05-12 14:03:22", "source": "commons-desc-page"},
    "Artist": {"value": '<a href="//commons.wikimedia.org/wiki/User:Dora">Dora</a>'},
    "LicenseShortName": {"value": "CC BY-SA 4.0"},
    "License": {"value": "cc-by-sa-4.0"},
    "LicenseUrl": {"value": "https://creativecommons.org/licenses/by-sa/4.0"},
    "Restrictions": {"value": ""},
}
INFO = {
    "url": "https://upload.wikimedia.org/wikipedia/commons/a/ab/Ben.jpg",
    "descriptionurl": "https://commons.wikimedia.org/wiki/File:Ben_and_Cleo_01.jpg",
    "thumburl": "https://thumb.wikimedia.org/commons/a/ab/Ben.jpg/960px-Ben.jpg",
    "thumbwidth": 900,
    "mime": "image/jpeg",
    "mediatype": "BITMAP",
    "extmetadata": META,
}
BARE = {"pageid": 1, "ns": 6, "title": "File:Ben and Cleo 01.jpg", "index": 1}
FILE = {**BARE, "imageinfo": [INFO]}


def answer(data, url=None, kind="application/json"):
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Page(url or OPENVERSE.start("happy couple"), content, {"content-type": kind})


def openverse(*results, page_count=1, url=None, **more):
    data = {"result_count": 40, "page_count": page_count, "page_size": 20, "results": [*results]}
    return OPENVERSE.parse(answer({**data, **more}, url))


def commons(*pages, url=None, **more):
    data = {"batchcomplete": True, "query": {"pages": [*pages]}, **more}
    return COMMONS.parse(answer(data, url or COMMONS.start("happy couple")))


def one_file(info=(), meta=(), **page):
    """The candidate that a file with these changes gives."""
    meta = {**META, **{name: {"value": value} for name, value in dict(meta).items()}}
    info = {**INFO, "extmetadata": meta, **dict(info)}
    return commons({**FILE, "imageinfo": [info], **page}).candidates[0]


def query_of(url):
    return dict(parse_qsl(urlsplit(url).query))


# ---- Openverse


def test_openverse_asks_for_photographs_that_may_be_adapted():
    url = OPENVERSE.start("glückliches Paar & mehr")
    assert url.startswith("https://api.openverse.org/v1/images/?")
    more = {"category": "photograph", "mature": "false", "filter_dead": "true"}
    more |= {"license": "by,by-sa,cc0,pdm", "page_size": "20", "page": "1"}
    assert query_of(url) == {"q": "glückliches Paar & mehr"} | more


def test_openverse_result_becomes_a_candidate():
    (candidate,) = openverse(RESULT).candidates
    assert candidate.url == RESULT["url"]
    assert candidate.page == RESULT["foreign_landing_url"]
    assert candidate.title == "Couple at the lake 2"
    assert (candidate.author, candidate.author_url) == ("Anna & Co", RESULT["creator_url"])
    assert (candidate.licence, candidate.licence_url) == ("by-sa", RESULT["license_url"])
    assert candidate.series == "Anna & Co | Couple at the lake"
    assert candidate.objection == ""


def test_openverse_pages_until_the_page_count():
    second = openverse(RESULT, page_count=3).next
    third = openverse(RESULT, page_count=3, url=second).next
    assert [query_of(url)["page"] for url in (second, third)] == ["2", "3"]
    assert query_of(second)["q"] == query_of(third)["q"] == "happy couple"
    for count in (3, 1):  # it may shrink while one pages
        assert openverse(RESULT, page_count=count, url=third).next is None


def test_openverse_ends_at_240_results_or_at_nonsense_and_says_so():
    twelfth = OPENVERSE.start("kiss").replace("page=1", "page=12")
    listing = openverse(RESULT, page_count=500, url=twelfth)
    assert listing.next is None
    assert "240" in listing.note
    for count in (None, "many", -3, 1e300, [], "9" * 5000):
        assert openverse(RESULT, page_count=count).next is None
    for results in (None, {}, "none"):
        listing = openverse(page_count=5, results=results)
        assert (listing.candidates, listing.next) == ([], None)
        assert "empty" in listing.note


def test_openverse_results_with_holes():
    bare = {"id": "x", "license": "cc0", "url": "https://h.org/a.jpg"}
    listing = openverse(RESULT, {**RESULT, "url": None}, None, bare, {**bare, "license": None})
    first, second = listing.candidates  # the last has the address of the one before
    assert first.url == RESULT["url"]
    assert (second.author, second.page, second.title) == ("", "", "")
    assert second.licence_url == "https://creativecommons.org/publicdomain/zero/1.0/"
    assert "1 of 4" in listing.note
    (again,) = openverse({**RESULT, "url": RESULT["url"] + "?utm_source=x"}).candidates
    assert identity(first.url) == identity(again.url)


def test_openverse_licence_and_deed_that_differ_are_no_licence():
    changes = [{"license": "by"}, {"license": "sampling+"}, {"license": None}]
    changes += [
        {"license_version": "7.0"},
        {"license_url": RESULT["license_url"].replace("by-", "")},
    ]
    for change in changes:
        (candidate,) = openverse({**RESULT, **change}).candidates
        assert (candidate.licence, candidate.licence_url) == ("", "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mature": True}, "mature"),
        ({"unstable__sensitivity": ["user_reported_sensitivity"]}, "mature"),
        ({"category": "illustration"}, "illustration"),
        ({"filetype": "svg"}, "not a bitmap"),
    ],
)
def test_openverse_objections(change, reason):
    (candidate,) = openverse({**RESULT, **change}).candidates
    assert reason in candidate.objection


@pytest.mark.parametrize(
    ("page", "words", "later"),
    [
        (answer(b"<!DOCTYPE html><title>Wait</title>", kind="text/html"), "front door", False),
        (answer(b"  <html>", kind=""), "front door", False),
        (answer(b'{"results": [', kind="application/json"), "not JSON", True),
        (answer(b"[" * 100_000), "not JSON", True),
        (answer([1, 2]), "unknown shape", False),
        (answer({"detail": "Request was throttled. Expected available in 9 seconds."}), "9", True),
        (answer({"detail": "Invalid page size for anonymous."}), "Invalid page size", False),
        (answer({"license": ["Unknown licence x"]}), "Unknown licence x", False),
    ],
)
def test_openverse_refusals_are_one_sentence(page, words, later):
    with pytest.raises(SourceError, match=words) as error:
        OPENVERSE.parse(page)
    assert error.value.later is later
    assert "\n" not in str(error.value)


# ---- Wikimedia Commons


def test_commons_asks_as_documented():
    query = query_of(COMMONS.start("happy couple"))
    assert query["gsrsearch"] == "happy couple filetype:bitmap"
    assert query["generator"] == "search"
    assert (query["gsrnamespace"], query["gsrlimit"]) == ("6", "50")
    assert (query["formatversion"], query["iiurlwidth"], query["maxlag"]) == ("2", "960", "5")
    assert {"LicenseUrl", "Artist", "Restrictions"} <= {*query["iiextmetadatafilter"].split("|")}


def test_commons_file_becomes_a_candidate():
    candidate = one_file()
    assert candidate.url == INFO["thumburl"]
    assert candidate.page == INFO["descriptionurl"]
    assert candidate.title == "Ben and Cleo 01"
    assert (candidate.licence, candidate.licence_url) == ("by-sa", META["LicenseUrl"]["value"])
    assert candidate.author == "Dora"
    assert candidate.author_url == "https://commons.wikimedia.org/wiki/User:Dora"
    assert candidate.series == "Dora | 2019-05-12"
    assert candidate.objection == ""
    assert one_file(info={"thumburl": None}).url == INFO["url"]


def test_commons_keeps_the_order_of_the_search():
    bare = {**FILE, "imageinfo": [{**INFO, "extmetadata": {}}]}
    pages = [{**bare, "index": i, "title": f"File:{i}.jpg"} for i in (3, 1, 2)]
    assert [c.title for c in commons(*pages).candidates] == ["1", "2", "3"]


def test_commons_copies_continue_whole():
    following = {"gsroffset": 50, "continue": "gsroffset||"}
    listing = commons(FILE, **{"continue": following})
    query = query_of(listing.next)
    assert (query["gsroffset"], query["continue"]) == ("50", "gsroffset||")
    assert query["gsrsearch"] == "happy couple filetype:bitmap"
    # what an earlier answer said to continue with does not stay behind
    listing = commons(FILE, url=listing.next, **{"continue": {"iicontinue": "Ben.jpg|1"}})
    assert "gsroffset" not in query_of(listing.next)
    again = commons(FILE, url=listing.next, **{"continue": {"iicontinue": "Ben.jpg|1"}})
    assert again.next is None
    assert "repeats itself" in again.note
    assert commons(FILE).next is None
    assert COMMONS.parse(answer({"batchcomplete": True}, COMMONS.start("x"))) == Listing([], None)


def test_commons_batch_in_two_answers_gives_every_file_once():
    first, second = {**BARE, "title": "File:A.jpg"}, {**BARE, "title": "File:B.jpg"}
    full = {"imageinfo": [{**INFO, "extmetadata": []}]}
    one = commons(
        {**first, **full}, second, batchcomplete=False, **{"continue": {"iicontinue": "B.jpg|1"}}
    )
    two = commons(first, {**second, **full}, url=one.next)
    assert [c.title for c in one.candidates + two.candidates] == ["A", "B"]
    assert not any(c.objection for c in one.candidates + two.candidates)


def test_commons_file_that_is_not_there_is_an_objection():
    for page in (
        BARE,
        {**BARE, "imageinfo": []},
        {**BARE, "imageinfo": [{"filemissing": True}]},
        {**BARE, "missing": True},
        {**FILE, "imageinfo": [{**INFO, "userhidden": True}]},
        {**FILE, "imageinfo": [{**INFO, "filehidden": True}]},
    ):
        (candidate,) = commons(page).candidates
        assert candidate.objection
        assert candidate.page == "https://commons.wikimedia.org/wiki/File%3ABen_and_Cleo_01.jpg"


@pytest.mark.parametrize(
    ("info", "meta", "reason"),
    [
        ({"mediatype": "DRAWING", "mime": "image/svg+xml"}, {}, "DRAWING"),
        ({"mediatype": None}, {}, "unknown"),
        ({"mime": "image/gif"}, {}, "image/gif"),
        ({}, {"Restrictions": "trademarked|personality"}, "personality rights"),
    ],
)
def test_commons_objections(info, meta, reason):
    assert reason in one_file(info, meta).objection


@pytest.mark.parametrize(
    ("url", "short", "name", "expected"),
    [
        ("http://creativecommons.org/licenses/by/2.0", "cc-by-2.0", "", "by"),
        ("http://creativecommons.org/licenses/by/2.0", "cc-by-sa-2.0", "", ""),
        ("http://creativecommons.org/licenses/nc/1.0", "cc-by-1.0", "CC BY 1.0", ""),
        ("", "cc-by-sa-3.0-de", "CC BY-SA 3.0 de", "by-sa"),
        ("http://creativecommons.org/publicdomain/mark/1.0/deed.en", "pd", "Public domain", "pdm"),
        ("https://www.gnu.org/copyleft/fdl.html", "gfdl", "GFDL", ""),
        ("https://www.gnu.org/copyleft/fdl.html", "cc-by-sa-3.0", "GFDL", ""),
        ("", "pd", "Public domain", "pdm"),
        (None, None, "CC BY 3.0", "by"),
        ("", "", "", ""),
    ],
)
def test_commons_licence_by_all_fields(url, short, name, expected):
    candidate = one_file(meta={"LicenseUrl": url, "License": short, "LicenseShortName": name})
    assert candidate.licence == expected
    assert "gnu" not in candidate.licence_url
    if name == "CC BY 3.0":
        assert candidate.licence_url == "https://creativecommons.org/licenses/by/3.0/"


def test_commons_author_is_text_without_scripts_and_the_day_may_be_missing():
    html = '<script>alert(1)</script><b>Dora</b> <span style="display: none;">Unknown</span>'
    candidate = one_file(meta={"Artist": html + '<a href="javascript:x">D.</a>'})
    assert candidate.author == "Dora D."
    assert candidate.author_url == ""
    meta = {"DateTimeOriginal": "between 1950 and 1960"}
    assert one_file(meta=meta).series == "Dora | Ben and Cleo"
    assert one_file(meta={"Artist": None}).series == ""


@pytest.mark.parametrize(
    ("data", "code", "later"),
    [
        ({"error": {"code": "maxlag", "info": "Waiting for a database", "lag": 6}}, "maxlag", True),
        ({"errors": [{"code": "ratelimited", "text": "Too fast"}]}, "ratelimited", True),
        ({"errors": [{"code": "internal_api_error_DBQueryError"}]}, "internal_api_error", True),
        ({"error": {"code": "badvalue", "info": "Unrecognised"}}, "badvalue", False),
        ({"error": "strange"}, "unknown error", False),
    ],
)
def test_commons_errors_that_come_as_http_200(data, code, later):
    with pytest.raises(SourceError, match=code) as error:
        COMMONS.parse(answer(data, COMMONS.start("x")))
    assert error.value.later is later


# ---- Whatever a server sends


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


def damaged(whole):
    """JSON like `whole` in which any value may be any other JSON."""
    if isinstance(whole, dict):
        parts = {name: damaged(value) for name, value in whole.items()}
        return JSON | st.fixed_dictionaries({}, optional=parts) | st.fixed_dictionaries(parts)
    if isinstance(whole, list):
        return JSON | st.tuples(*map(damaged, whole)).map(list)
    return JSON | st.just(whole)


@given(damaged({"results": [RESULT], "page_count": 3, "detail": "no"}))
def test_openverse_parse_raises_nothing_but_source_errors(data):
    assert_calm(OPENVERSE, json.dumps(data).encode())


FILES = {"batchcomplete": True, "query": {"pages": [FILE]}}


@given(damaged({**FILES, "continue": {"gsroffset": 50}, "error": {"code": "maxlag"}}))
def test_commons_parse_raises_nothing_but_source_errors(data):
    assert_calm(COMMONS, json.dumps(data).encode())


@given(st.binary(max_size=200), st.sampled_from([OPENVERSE, COMMONS, HtmlGallery()]))
def test_random_bytes_raise_nothing_but_source_errors(content, source):
    assert_calm(source, content)


def assert_calm(source, content):
    url = source.start("https://h.org/" if source.name == "html" else "happy couple")
    try:
        listing = source.parse(Page(url, content, {}))
    except SourceError as error:
        assert str(error).endswith(".")
        return
    for candidate in listing.candidates:
        assert join("", candidate.url) == candidate.url
        for text in vars(candidate).values():
            assert isinstance(text, str)
            assert "\n" not in text
            text.encode("utf-8")


# ---- Text and series


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\n b\t\u2028c", "a b c"),
        ("I &lt;3 you &amp; me", "I <3 you & me"),
        ("<p>x<br>&lt;b&gt;</p>", "x<b>"),
        ("half \ud83d of a smile", "half ? of a smile"),
        ("www.example.org/a.jpg", "www.example.org/a.jpg"),
        (None, ""),
        ({"a": 1}, ""),
        (7, "7"),
    ],
)
def test_plain_text(value, text):
    assert plain_text(value) == text
    assert len(plain_text("long " * 1000)) < 301


def test_series_is_what_was_taken_together():
    assert series_of("Lake (12)", "Anna") == series_of("Lake 3", "Anna") == "Anna | Lake"
    assert series_of("Lake 3", "Anna") != series_of("Lake 3", "Ben")
    assert series_of("One", "Anna", "2020-01-01") == series_of("Two", "Anna", "2020-01-01")
    assert series_of("Photo 1", "") == ""  # half of the web has this title


# ---- Addresses


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("../a.jpg", "https://h.org/a.jpg"),
        ("//cdn.org/a.jpg", "https://cdn.org/a.jpg"),
        (" a b.jpg#top", "https://h.org/x/a%20b.jpg"),
        ("http://Größe.de/ä?q=%7e", "http://xn--gre-6ka8i.de/%C3%A4?q=~"),
        ("https://h.org:8443/a/../%2e%2e/%2fetc", "https://h.org:8443/%2Fetc"),
        ("http://[::ffff:7f00:1]/", "http://[::ffff:7f00:1]/"),  # the fetcher's guard refuses it
        ("", ""),
        ("data:image/png;base64,AAAA", ""),
        ("javascript:alert(1)", ""),
        ("file:///etc/passwd", ""),
        ("http://user:pw@h.org/", ""),
        ("http://h.org\\@evil.org/", ""),
        ("..\\a\\b.jpg?c\\d", "https://h.org/a/b.jpg?c%5Cd"),
        ("https://h.org//a//b.jpg", "https://h.org/a//b.jpg"),
        ("HTTPS://H.ORG.:443/%7E/%2e%2e/%70", "https://h.org/p"),
        ("http://h.org:0080", "http://h.org/"),
        ("/a\tb\n.jpg", "https://h.org/ab.jpg"),
        ("http://h.org/%zz", "http://h.org/%25zz"),
        ("http://[::1", ""),
        ("http://h.org:99999/", ""),
        ("http://h.org:0/", ""),
        ("http:///a.jpg", ""),
        ("https://" + "a" * 70 + "é.org/", ""),
        ("a" * 9000, ""),
        (None, ""),
    ],
)
def test_join(link, url):
    assert join("https://h.org/x/y.html", link) == url


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTPS://H.org:443", "https://h.org/"),
        ("https://h.org./a%7eb#c", "https://h.org/a~b"),
        ("https://h.org/%c3%a9", "https://h.org/é"),
        ("https://größe.de/", "https://xn--gre-6ka8i.de"),
        ("https://h.org/a?utm_source=x&b=1&fbclid=2", "https://h.org/a?b=1"),
    ],
)
def test_identity_is_equal_for_the_same_thing(one, other):
    assert identity(one) == identity(other) != ""


def test_identity_differs_for_different_things():
    urls = ["http://h.org/a", "https://h.org/a", "https://h.org/A", "https://h.org/a%2Fb"]
    urls += ["https://h.org/a/b", "https://h.org:8443/a", "https://h.org/a?b=1", "https://g.org/a"]
    assert len({identity(url) for url in urls}) == len(urls)


@given(st.text(alphabet="aZé%2fF~:/?#&=@[]. \\\ud800", max_size=30))
def test_join_and_identity_settle(text):
    url = join("https://h.org/", text)
    assert join("", url) == url
    assert url == "" or urlsplit(url).scheme in ("http", "https")
    assert identity(identity(url)) == identity(url)
    assert "#" not in url and url.isascii()


# ---- Queries


def test_queries_of_the_project_are_balanced_and_keep_their_order(tmp_path):
    queries = load_queries(ROOT / "data" / "queries.toml")
    assert list(queries) == ["happy", "unhappy"]
    assert len(queries["happy"]) == len(queries["unhappy"]) >= 12
    words = " ".join(queries["happy"] + queries["unhappy"]).lower()
    for word in ("child", "kid", "teen", "baby", "school", "violence", "police", "celebrity"):
        assert word not in words
    path = tmp_path / "queries.toml"
    path.write_text(
        '[unhappy]\nphrases = ["c"]\npages = ["https://h.org/u"]\n'
        '[happy]\nphrases = [" b ", "a"]\npages = ["https://h.org/h"]\n'
    )
    assert load_queries(path) == {"happy": ["b", "a"], "unhappy": ["c"]}
    assert load_queries(path, "pages")["unhappy"] == ["https://h.org/u"]
    with pytest.raises(FileNotFoundError):
        load_queries(tmp_path / "none.toml")


B = '[unhappy]\nphrases = ["b"]\n'


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[happy", "phrases", "not readable as TOML"),
        ('[happy]\nphrases = ["é"]', "phrases", "not readable"),  # written as Latin-1
        (B + '[sad]\nphrases = ["b"]', "phrases", "class 'sad'"),
        ('[happy]\nphrases = ["a"]', "phrases", r"needs, under \[unhappy\], phrases"),
        ("happy = 3\n" + B, "phrases", r"needs, under \[happy\]"),
        (B + "[happy]\nphrases = []", "phrases", "needs, under"),
        (B + '[happy]\nphrases = [" "]', "phrases", "list of texts"),
        (B + "[happy]\nphrases = [1]", "phrases", "list of texts"),
        (B + '[happy]\nphrases = "a"', "phrases", "list of texts"),
        (B + '[happy]\nphrases = ["  B "]', "phrases", r"\[happy\] and \[unhappy\]"),
        (B + '[happy]\nphrases = ["a", "A"]', "phrases", "'A' twice"),
        ('[happy]\npages = ["h.org/a"]\n[unhappy]\npages = ["a"]', "pages", "no http"),
    ],
)
def test_queries_with_faults(tmp_path, text, kind, words):
    path = tmp_path / "queries.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        load_queries(path, kind)


# ---- The real interfaces, by consent only


@pytest.mark.parametrize("source", [OPENVERSE, COMMONS], ids=lambda source: source.name)
def test_live(source):
    contact = os.environ.get("DCLIB_CONTACT")
    if os.environ.get("DCLIB_LIVE") != "1" or not contact:
        pytest.skip("asks a real server: set DCLIB_LIVE=1 and DCLIB_CONTACT to your address")
    import requests

    agent = f"dclib/0.1 ({contact}) python-requests/{requests.__version__}"
    reply = requests.get(source.start("happy couple"), headers={"User-Agent": agent}, timeout=30)
    headers = {name.lower(): value for name, value in reply.headers.items()}
    listing = source.parse(Page(reply.url, reply.content, headers))
    assert len(listing.candidates) >= 10
    assert listing.next
    fine = [c for c in listing.candidates if c.licence and c.page and not c.objection]
    assert len(fine) >= len(listing.candidates) / 3
