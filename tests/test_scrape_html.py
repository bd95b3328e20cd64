"""Gallery pages as the web has them: lazy, nested, broken, hostile. All written by hand."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dclib.scrape.html import HtmlGallery, best_of, page_optouts
from dclib.scrape.sources import Page, SourceError

GALLERY = HtmlGallery()
URL = "https://h.org/g/list.html"
BY = "https://creativecommons.org/licenses/by/4.0/"
ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def page(html, url=URL, kind="text/html"):
    content = html if isinstance(html, bytes) else html.encode()
    return Page(url, content, {"content-type": kind})


def parse(html, **more):
    return GALLERY.parse(page(html, **more))


def urls(html, **more):
    return [candidate.url for candidate in parse(html, **more).candidates]


def refined(detail, gallery='<a href="/p/1"><img src="/t/1.jpg"></a>'):
    """What the one picture of a gallery page becomes by its own page."""
    (thumbnail,) = parse(gallery).candidates
    assert thumbnail.page and not thumbnail.licence
    return GALLERY.refine(thumbnail, page(detail, "https://h.org/p/1"))


def json_ld(*nodes, kind="application/ld+json"):
    text = json.dumps(nodes[0] if len(nodes) == 1 else list(nodes))
    return f'<script type="{kind}">{text}</script>'


# ---- Which address an image gives


@pytest.mark.parametrize(
    ("html", "url"),
    [
        ("<img src=a.jpg>", "https://h.org/g/a.jpg"),
        ('<img src="../a.jpg?x=1&amp;y=2#z">', "https://h.org/a.jpg?x=1&y=2"),
        ("<IMG SRC=//cdn.org/a.jpg>", "https://cdn.org/a.jpg"),
        ('<base href="/b/"><img src="a.jpg">', "https://h.org/b/a.jpg"),
        ('<base href="javascript:x"><img src="a.jpg">', "https://h.org/g/a.jpg"),
        ('<a href="big.JPG"><img src="a.jpg"></a>', "https://h.org/g/big.JPG"),
        ('<a href="big.jpg" rel="nofollow"><img src="a.jpg"></a>', "https://h.org/g/a.jpg"),
        (f'<img src="{PIXEL}" data-src="a.jpg">', "https://h.org/g/a.jpg"),
        ('<img src="a.jpg" data-original="b.jpg">', "https://h.org/g/b.jpg"),
        ('<img src="loading.gif" data-lazy-src="b.jpg">', "https://h.org/g/b.jpg"),
        (f'<img src="{PIXEL}"><noscript><img src="a.jpg"></noscript>', "https://h.org/g/a.jpg"),
        ('<img src="s.jpg" srcset="a.jpg 320w, b.jpg 1280w"/>', "https://h.org/g/b.jpg"),
        ('<img src="s.jpg" data-srcset="a.jpg, b.jpg 2x"/>', "https://h.org/g/b.jpg"),
        (f'<img srcset="{PIXEL} 1x" src="a.jpg">', "https://h.org/g/a.jpg"),
        ("<table>" * 500 + "<td><img src=a.jpg>", "https://h.org/g/a.jpg"),
        ('<img src="a.jpg" width="100%" height="64px">', "https://h.org/g/a.jpg"),
    ],
)
def test_best_address_of_an_image(html, url):
    assert urls(html) == [url]


@pytest.mark.parametrize(
    "html",
    [
        f'<img src="{PIXEL}">',
        '<img src="a.jpg" width="32">',
        '<img src="a.jpg" height="63px">',
        '<img src="file:///etc/passwd">',
        '<img src="http://user:pw@h.org/a.jpg">',
        "<img>",
    ],
)
def test_small_images_and_odd_addresses_are_no_candidates(html):
    assert urls(html) == []


def test_every_picture_comes_once_and_in_order_with_its_title():
    html = '<img src="b.jpg"><img src="a.jpg"><img src="b.jpg?utm_source=x"><img src="c.jpg">'
    assert [u[-5:] for u in urls(html)] == ["b.jpg", "a.jpg", "c.jpg"]
    html = "<img src=a.jpg alt=A title=T><img src=b.jpg title=T>"
    assert [candidate.title for candidate in parse(html).candidates] == ["A", "T"]


@pytest.mark.parametrize(
    ("srcset", "best"),
    [
        ("a 100w, b 2048w, c 2049w", "b"),
        ("a 5000w, b 4000w", "b"),
        ("a, b 3x, c 1.5x", "b"),
        ("a 2x, data:image/png;base64,AAAA 3x", "a"),
        ("img,w_320.jpg 320w,b,c.jpg 640w", "b,c.jpg"),
        (" ,, a.jpg,, b.jpg ,", "a.jpg"),
        ("a -1x, b 0.5x, c soon", "b"),
        ("", ""),
        (",", ""),
    ],
)
def test_best_of_a_srcset(srcset, best):
    assert best_of(srcset) == best


# ---- Licence, author and the page of a single picture


IMAGE = {
    "@type": "ImageObject",
    "contentUrl": "/full/1.jpg",
    "thumbnailUrl": "/t/1.jpg",
    "license": BY,
    "creator": {"@type": "Person", "name": "<b>Anna</b>", "url": "/anna"},
    "name": "At the lake",
    "dateCreated": "2020-05-01T10:00",
}
AROUND = [  # what JSON-LD of the web lies in
    "<!--{}-->",
    "//<![CDATA[\n{}\n//]]>",
    "/*<![CDATA[*/{}/*]]>*/",
    "<![CDATA[{}]]>",
    "<!--//--><![CDATA[//><!--\n{}\n//--><!]]>",
    "/* made by a plug-in */ {};",
    "\ufeff{} // end",
]
OTHER = {"@type": "ImageObject", "contentUrl": "/full/2.jpg", "license": ZERO}


@pytest.mark.parametrize(
    "html",
    [
        json_ld(IMAGE),
        json_ld(IMAGE, kind=" Application/LD+JSON; charset=utf-8"),
        json_ld({"@type": "Thing"}, IMAGE),
        json_ld(OTHER, IMAGE),
        json_ld({"@graph": [{"@type": ["Photograph", "ImageObject"], **IMAGE}]}),
        json_ld({"@type": "ImageGallery", "associatedMedia": [OTHER, IMAGE]}),
        json_ld({"@type": "Article", "image": IMAGE, "logo": OTHER, "author": {"image": OTHER}}),
        json_ld({"@type": "ItemList", "itemListElement": [{"item": IMAGE}]}),
        "<script type=application/ld+json>{broken</script>" + json_ld(IMAGE),
        json_ld({**IMAGE, "license": {"@id": BY}, "creator": [IMAGE["creator"]]}),
        json_ld({**IMAGE, "thumbnailUrl": ""}) + "<img src=/hero.jpg>",
        *(
            f"<script type=application/ld+json>{around.format(json.dumps(IMAGE))}</script>"
            for around in AROUND
        ),
        json_ld({**IMAGE, "caption": "@"}).replace('"@"', '"a\tb\n\x01"'),
        json_ld(IMAGE).replace("}</", ",}</"),
        json_ld(IMAGE).replace("}</", ", // the end\n}</"),
    ],
)
def test_json_ld_of_the_page(html):
    candidate = refined(html)
    assert candidate.url == "https://h.org/full/1.jpg"
    assert candidate.page == "https://h.org/p/1"
    assert (candidate.licence, candidate.licence_url) == ("by", BY)
    assert (candidate.author, candidate.author_url) == ("Anna", "https://h.org/anna")
    assert (candidate.title, candidate.series) == ("At the lake", "Anna | 2020-05-01")


@pytest.mark.parametrize(
    "html",
    [
        f"<script type='application/ld+json'>{'[' * 200_000}</script>",
        json_ld({"@type": "ImageObject", "contentUrl": 7}),
        json_ld(3),
        json_ld({"@graph": {}}),
        json_ld(OTHER, {**OTHER, "contentUrl": "/full/3.jpg"}),  # of which is it the page?
        json_ld(OTHER) + "<img src=/t/1.jpg>",  # not of the one that led here
        json_ld({"@type": "ImageObject", "url": "/p/1", "license": BY}),  # a page is no file
        "<p>Gone.",
    ],
)
def test_a_page_that_says_nothing_of_the_picture_changes_nothing(html):
    (thumbnail,) = parse('<a href="/p/1"><img src="/t/1.jpg" alt="Lake"></a>').candidates
    assert GALLERY.refine(thumbnail, page(html, "https://h.org/p/1")) == thumbnail


def test_thumbnail_and_its_page_without_json_ld():
    detail = (
        '<meta property="og:image" content="/full/1.jpg"><h1>Anna and Ben</h1>'
        f'<p>by <a rel="author" href="/cleo">Cleo</a>, <a rel="License" href="{BY}">CC BY</a></p>'
        '<a href="/p/2"><img src="/t/2.jpg"></a>'
    )
    candidate = refined(detail, '<a href="/p/1"><img src="/t/1.jpg" alt="Lake 1"></a>')
    assert candidate.url == "https://h.org/full/1.jpg"
    assert (candidate.licence, candidate.licence_url) == ("by", BY)
    assert (candidate.author, candidate.author_url) == ("Cleo", "https://h.org/cleo")
    assert (candidate.title, candidate.series) == ("Lake 1", "Cleo | Lake")


LINK = f'<a rel="license" href="{BY}">x</a>'


@pytest.mark.parametrize(
    ("detail", "licence", "address"),
    [
        (LINK, "by", BY),
        (f'<link rel="license" href="{BY}">', "by", BY),
        (LINK + f'<link rel="license" href="{ZERO}">', "", ""),
        (f"<footer>{LINK}</footer>", "", ""),  # of the site's text
        (LINK.replace("x</a>", "CC BY 4.0</a>"), "by", BY),
        # what contradicts, or is not known beside what is, is no licence
        (LINK.replace("x</a>", "CC BY-NC 4.0</a>"), "", ""),
        (LINK.replace("x</a>", "Non-commercial use</a>"), "", ""),
        (LINK + '<a rel="license" href="javascript:terms()">', "", ""),
        (LINK + f'<a rel="license" href="{BY.replace("by", "sampling")}">', "", ""),
        (json_ld({**IMAGE, "license": "https://gnu.org/fdl"}) + LINK, "", ""),
        (json_ld({**IMAGE, "license": BY.replace("by", "by-nc")}) + LINK, "", ""),
        (json_ld({**IMAGE, "license": {"name": "CC BY-NC 4.0", "url": BY}}), "", ""),
        (json_ld({**IMAGE, "license": {"name": "Personal use", "url": BY}}), "", ""),
        (json_ld({**IMAGE, "license": {"name": "CC BY 4.0", "url": BY}}), "by", BY),
        (json_ld({**IMAGE, "license": [BY, ZERO]}), "", ""),
        (json_ld(IMAGE, {**IMAGE, "license": ZERO}), "", ""),
        (json_ld({**IMAGE, "license": "https://creativecommons.org/licenses/nc-sa/1.0/"}), "", ""),
    ],
)
def test_licence_of_the_page(detail, licence, address):
    candidate = refined(detail)
    assert (candidate.licence, candidate.licence_url) == (licence, address)


def test_licence_of_the_head_is_for_pictures_without_a_page_of_their_own():
    head = f'<link rel="license" href="{BY}">'
    html = "<img src=a.jpg><a href=/p><img src=b.jpg></a>"
    first, second = parse(head + html).candidates
    assert (first.licence, first.licence_url, first.page) == ("by", BY, URL)
    assert (second.licence, second.page) == ("", "https://h.org/p")
    two = f'<link rel="license" href="{ZERO}">'
    other = json_ld({**OTHER, "license": "https://gnu.org/fdl"})
    for nothing in (head + two, LINK, head + LINK.replace(BY, ZERO), head + other):
        assert [c.licence for c in parse(nothing + html).candidates] == ["", ""]


@pytest.mark.parametrize(
    "link",
    [
        'href="https://other.org/p/1"',
        'href="/p/1" rel="noopener nofollow"',
        'href="#"',
        'href="list.html?utm_source=x"',
        'href="javascript:open(1)"',
        'href="http://h.org:8080/p"',
    ],
)
def test_links_that_are_no_page_of_the_picture(link):
    (candidate,) = parse(f"<a {link}><img src=a.jpg></a>").candidates
    assert candidate.page == ""


# ---- Paging and opt-outs


@pytest.mark.parametrize(
    ("html", "following"),
    [
        ('<link rel="next" href="?page=2">', "https://h.org/g/list.html?page=2"),
        ('<a rel="Nofollow next" href="?page=2">', None),
        ('<a rel="NEXT" href="/g/2">', "https://h.org/g/2"),
        ('<a rel="next" href="#more">', None),
        ('<a rel="next" href="list.html">', None),
        ('<a rel="next">', None),
        ('<meta name="robots" content="index, nofollow"><a rel="next" href="/g/2">', None),
        ('<a class="next" href="/g/2">', None),
    ],
)
def test_next_page(html, following):
    assert parse(html + "<img src=a.jpg>").next == following


def test_next_page_on_another_host_is_not_followed():
    listing = parse('<link rel="next" href="https://evil.org/2"><img src=a.jpg>')
    assert listing.next is None
    assert "evil.org" in listing.note


@pytest.mark.parametrize(
    ("html", "directive"),
    [
        ('<meta name="robots" content="noimageai">', "robots: noimageai"),
        ('<META NAME="Robots" CONTENT="index,NOAI , follow">', "robots: noai"),
        ('<meta name="dclib" content="noindex">', "dclib: noindex"),
        ('<p><meta name="robots" content="follow none">', "robots: none"),
        ('<meta name="tdm-reservation" content="1">', "tdm-reservation: 1"),
        ('<meta name="tdm-reservation" content="0">', ""),
        ('<meta name="robots" content="max-image-preview:large noai">', "robots: noai"),
        ('<meta name="robots" content="foo:bar, noindex">', "robots: noindex"),
        ('<meta name="otherbot" content="noai">', ""),
        ('<meta name="robots" content="index, nofollow, noarchive, max-image-preview:none">', ""),
        ('<meta name="robots"><meta content="noai"><meta>', ""),
        ("noai", ""),
        ('<meta http-equiv="X-Robots-Tag" content="x: all, dclib: noai">', "x-robots-tag: noai"),
        ('<meta property="robots" content="no-ai">', "robots: noai"),
        ('<meta name="Content-Usage" content="train-ai=n">', "content-usage: train-ai=n"),
        ('<meta name="TDM-Reservation" content="true">', "tdm-reservation: true"),
        ('<meta name="tdm-policy" content="https://h.org/p.json">', "tdm-policy"),
        ('<meta name="tdm-reservation" content="0"><meta name="tdm-policy" content="/p">', ""),
    ],
)
def test_opt_outs(html, directive):
    assert page_optouts(page(html)) == directive


# ---- Broken and hostile pages


ODD_CHARSETS = ["utf-99", "hex", "idna", "punycode", "undefined", "utf-7", "x" * 500]


def test_charset_of_the_header_and_of_the_page():
    text = "<img src=a.jpg alt='Zoë é'>"
    for content, kind in [
        (text.encode(), "text/html; charset=utf-8"),
        (text.encode("latin-1"), "text/html; charset=ISO-8859-1"),
        (text.encode("latin-1"), "text/html; charset=utf-8"),  # the header is wrong
        (b"<meta charset=latin-1>" + text.encode("latin-1"), "text/html"),
        (text.encode("utf-16"), "text/html"),
        *((text.encode(), f"text/html; charset={name}") for name in ODD_CHARSETS),
    ]:
        assert parse(content, kind=kind).candidates[0].title == "Zoë é"


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 20_000 + "<a href=/p><img src=a.jpg></a>" * 900 + "</div>" * 20_000,
        "<a href=x>" * 20_000 + "<img src=a.jpg>",
        "<img srcset='" + ", " * 400_000 + "' src=a.jpg>",
        "<img srcset='" + "(" * 400_000 + "' src=a.jpg>",
        "<img srcset='" + "a 0q," * 100_000 + "' src=a.jpg>",
        "<img srcset='" + "a,,,," * 100_000 + "' data-src=a.jpg>",
        "<!--" * 100_000 + "--><img src=a.jpg>",
        *(
            f"<script type=application/ld+json>{text * 300_000}</script><img src=a.jpg>"
            for text in ("/*", '"', '"\\', ", ", "/ ")
        ),
    ],
    ids=["deep", "open-links", "commas", "brackets", "versions", "runs", "comments", *'/"\\,:'],
)
def test_hostile_markup_takes_no_time(html):
    start = time.process_time()
    assert urls(html)[-1] == "https://h.org/g/a.jpg" or "((" in html or ",,,," in html
    assert time.process_time() - start < 20  # not the square of its length


def test_no_more_than_a_thousand_images_of_a_page():
    listing = parse("".join(f"<img src={i}.jpg>" for i in range(1100)))
    assert len(listing.candidates) == 1000


@pytest.mark.parametrize("read", [GALLERY.parse, page_optouts])
@pytest.mark.parametrize("kind", ["image/jpeg", "application/json"])
def test_what_is_no_web_page(read, kind):
    with pytest.raises(SourceError, match=f"is {kind}, not a web page"):
        read(page("{}", kind=kind))


def test_pages_without_pictures_say_so_and_a_phrase_is_no_page():
    note = parse("<p>Nothing here.<script src=app.js></script>").note
    assert note.startswith(f"There is no picture in the markup of {URL}; what JavaScript would add")
    assert parse(b"").candidates == []
    assert GALLERY.start(" https://h.org/g#x ") == "https://h.org/g"
    for text in ("happy couple", "", "ftp://h.org/", "file:///etc/passwd"):
        with pytest.raises(SourceError, match="no http"):
            GALLERY.start(text)


TAGS = ["<img src=a.jpg>", "<img src='", "srcset=a 1w,", ">", "<a href=/p>", "</a>", "\0", "é"]
TAGS += ["<base href=x:>", "<script type=application/ld+json>", "</script>", "<?xml ?>"]
TAGS += ['{"@type":"ImageObject","url":[{}]}', "<meta property=og:image>"]
TAGS += ["<a rel=license href='//[", "<noscript>", "<picture><source srcset=b>", "<a rel=author>x"]
TAGS += ["<link rel=next href=//h.org:x>", "<meta name=robots content>"]


@given(st.lists(st.sampled_from(TAGS) | st.text(max_size=4), max_size=14).map("".join))
def test_no_markup_raises_anything(html):
    content = html.encode("utf-8", "replace")
    listing = parse(content)
    page_optouts(page(content))
    for candidate in listing.candidates:
        assert re.match("https?://[^/]", candidate.url)
        GALLERY.refine(candidate, page(content, "https://h.org/p"))
    assert listing.candidates or listing.note
