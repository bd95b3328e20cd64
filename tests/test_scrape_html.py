"""Gallery pages as the web has them: lazy, nested, broken, hostile. All written by hand."""

import json
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dclib.scrape.html import HtmlGallery, best_of, page_optouts, parse_srcset
from dclib.scrape.sources import Page, SourceError

GALLERY = HtmlGallery()
URL = "https://h.org/g/list.html"
BY = "https://creativecommons.org/licenses/by/4.0/"
ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def page(html, url=URL, kind="text/html"):
    content = html if isinstance(html, bytes) else html.encode()
    return Page(url, content, {"content-type": kind})


def parse(html, gallery=GALLERY, **more):
    return gallery.parse(page(html, **more))


def urls(html, **more):
    return [candidate.url for candidate in parse(html, **more).candidates]


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
        ('<img src="a.jpg" data-src="b.jpg" data-full="c.jpg">', "https://h.org/g/c.jpg"),
        ('<img src="loading.gif" data-lazy-src="b.jpg">', "https://h.org/g/b.jpg"),
        ('<img src="a-blank-look.jpg">', "https://h.org/g/a-blank-look.jpg"),
        (f'<img src="{PIXEL}"><noscript><img src="a.jpg"></noscript>', "https://h.org/g/a.jpg"),
        ('<img src="s.jpg" srcset="a.jpg 320w, b.jpg 1280w"/>', "https://h.org/g/b.jpg"),
        ('<img src="s.jpg" data-srcset="a.jpg, b.jpg 2x"/>', "https://h.org/g/b.jpg"),
        (
            '<picture><source type="image/avif" srcset="a.avif 900w"><source type="image/webp" '
            'data-srcset="a.webp 800w"><img src="a.jpg" srcset="a.jpg 400w"></picture>',
            "https://h.org/g/a.webp",
        ),
        (f'<img srcset="{PIXEL} 1x" src="a.jpg">', "https://h.org/g/a.jpg"),
        ("<table>" * 500 + "<td><img src=a.jpg>", "https://h.org/g/a.jpg"),
    ],
)
def test_best_address_of_an_image(html, url):
    assert urls(html) == [url]


@pytest.mark.parametrize(
    "html",
    [
        f'<img src="{PIXEL}">',
        '<img src="spacer.gif">',
        '<img src="1x1.png">',
        '<img src="/img/logo.png">',
        '<img class="user-avatar" src="a.jpg">',
        '<img id="icon" src="a.jpg">',
        '<img src="a.jpg" width="32">',
        '<img src="a.jpg" height="63px">',
        '<img src="file:///etc/passwd">',
        '<img src="http://user:pw@h.org/a.jpg">',
        "<img>",
    ],
)
def test_furniture_and_placeholders_are_no_candidates(html):
    assert urls(html) == []


def test_words_inside_words_are_no_furniture():
    assert len(urls('<img src="silicon-iconic.jpg" class="catalogos" width="100%">')) == 1


def test_every_picture_comes_once_and_in_order():
    html = '<img src="b.jpg"><img src="a.jpg"><img src="b.jpg?utm_source=x"><img src="c.jpg">'
    assert [u[-5:] for u in urls(html)] == ["b.jpg", "a.jpg", "c.jpg"]


def test_preview_of_the_page_counts_only_if_there_is_nothing_else():
    head = '<meta property="og:image" content="/og.jpg"><meta name="twitter:image" content="t.jpg">'
    assert urls(head) == ["https://h.org/og.jpg"]
    assert urls(head + "<img src=a.jpg>") == ["https://h.org/g/a.jpg"]


def test_titles_come_from_caption_then_alt_then_title():
    figure = "<figure><img src=a.jpg alt=Alt title=T><figcaption>Cap <i>tion</i></figcaption>"
    for html, title in [
        (figure + "</figure>", "Cap tion"),
        ("<img src=a.jpg alt=Alt title=T>", "Alt"),
        ("<a href=/p title=L><img src=a.jpg alt=''></a>", "L"),
    ]:
        assert parse(html).candidates[0].title == title


# ---- srcset


BLANKS = "\t\n\f\r "


def reference_srcset(text):
    """The algorithm of the HTML standard, step by step and one character at a time."""
    found, position = [], 0
    while True:
        while position < len(text) and text[position] in BLANKS + ",":
            position += 1
        if position == len(text):
            return found
        start = position
        while position < len(text) and text[position] not in BLANKS:
            position += 1
        url, descriptors = text[start:position], []
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            current, in_brackets = "", False
            while position < len(text) and (in_brackets or text[position] != ","):
                character = text[position]
                if not in_brackets and character in BLANKS:
                    descriptors.append(current)
                    current = ""
                else:
                    current += character
                    if character in "()":
                        in_brackets = (character == "(") if not in_brackets else character != ")"
                position += 1
            descriptors = [d for d in [*descriptors, current] if d]
        if (size := reference_size(descriptors)) is not None:
            found.append((url, *size))


def reference_size(descriptors):
    width = density = height = None
    for text in descriptors:
        number, kind = text[:-1], text[-1]
        if kind == "w" and re.fullmatch("[0-9]+", number):
            if width is not None or density is not None or int(number) == 0:
                return None
            width = int(number)
        elif kind == "x" and re.fullmatch(r"-?([0-9]+|[0-9]*\.[0-9]+)([eE][-+]?[0-9]+)?", number):
            if width is not None or density is not None or height is not None or float(number) < 0:
                return None
            density = float(number)
        elif kind == "h" and re.fullmatch("[0-9]+", number):
            if height is not None or density is not None or int(number) == 0:
                return None
            height = int(number)
        else:
            return None
    return None if height is not None and width is None else (width, density)


PIECES = [
    "a.jpg",
    "b,c",
    ",",
    " ",
    "\n",
    "320w",
    "0w",
    "200h",
    "1.5x",
    "-1x",
    "2e1x",
    "(",
    ")",
    "x",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("img,w_320.jpg 320w,b.jpg 640w 200h, c.jpg")
@example("a.jpg (1,2) 3w, b.jpg")
@example("data:image/png;base64,AAAA 1x, a.jpg 2x")
@example(" ,, a.jpg,, b.jpg ,")
@example("a.jpg -1x, b.jpg -0x, c.jpg 2x")
def test_srcset_as_in_the_standard(text):
    assert parse_srcset(text) == reference_srcset(text)


def test_best_of_a_srcset():
    assert best_of("a 100w, b 2048w, c 2049w") == "b"
    assert best_of("a 5000w, b 4000w") == "b"
    assert best_of("a, b 3x, c 1.5x") == "b"
    assert best_of("a 2x, data:image/png;base64,AAAA 3x") == "a"
    assert best_of("") == best_of("a 0w") == ""


# ---- JSON-LD


IMAGE = {
    "@type": "ImageObject",
    "contentUrl": "/full/1.jpg",
    "thumbnailUrl": "/t/1.jpg",
    "license": BY,
    "creator": {"@type": "Person", "name": "<b>Anna</b>", "url": "/anna"},
    "name": "At the lake",
    "dateCreated": "2020-05-01T10:00",
}


@pytest.mark.parametrize(
    "html",
    [
        json_ld(IMAGE),
        json_ld(IMAGE, kind=" Application/LD+JSON; charset=utf-8"),
        json_ld({"@type": "Thing"}, IMAGE),
        json_ld({"@graph": [{"@type": ["Photograph", "ImageObject"], **IMAGE}]}),
        json_ld({"@type": "ImageGallery", "associatedMedia": [IMAGE]}),
        json_ld({"@type": "Article", "image": IMAGE}),
        json_ld({"@type": "ItemList", "itemListElement": [{"item": IMAGE}]}),
        "<script type=application/ld+json>{broken</script>" + json_ld(IMAGE),
        json_ld({**IMAGE, "license": {"@id": BY}, "creator": [IMAGE["creator"]]}),
    ],
)
def test_json_ld(html):
    listing = parse(html)
    (candidate,) = listing.candidates
    assert candidate.url == "https://h.org/full/1.jpg"
    assert (candidate.licence, candidate.licence_url) == ("by", BY)
    assert (candidate.author, candidate.author_url) == ("Anna", "https://h.org/anna")
    assert candidate.series == "Anna | 2020-05-01"
    assert candidate.page == URL
    assert not GALLERY.needs_detail(candidate)
    assert ("could not be read" in listing.note) == ("{broken" in html)


def test_json_ld_and_the_image_itself_are_one_candidate():
    html = json_ld({**IMAGE, "name": "", "creator": None}) + (
        '<figure><a href="/p/1"><img src="/t/1.jpg" alt="Lake"></a><a rel=author>Ben</a></figure>'
    )
    (candidate,) = parse(html).candidates
    assert candidate.url == "https://h.org/full/1.jpg"
    assert (candidate.title, candidate.author, candidate.licence) == ("Lake", "Ben", "by")
    assert candidate.page == "https://h.org/p/1"


def test_json_ld_pictures_of_others_do_not_count():
    others = {"logo": IMAGE, "publisher": {"logo": IMAGE}, "author": {"image": IMAGE}}
    assert urls(json_ld({"@type": "Article", **others, "image": ["/a.jpg", "/b.jpg"]})) == [
        "https://h.org/a.jpg",
        "https://h.org/b.jpg",
    ]


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"@type":"ImageObject","contentUrl":7}', "3", "null", '{"@graph":{}}'],
)
def test_json_ld_that_says_nothing(content):
    html = f"<script type='application/ld+json'>{content}</script><img src=a.jpg>"
    assert urls(html) == ["https://h.org/g/a.jpg"]


# ---- Licence and author


def test_licence_inside_an_item_is_of_this_item():
    item = '<li><div><img src="{0}.jpg"></div><a rel="license" href="{1}">x</a></li>'
    lazy = f'{PIXEL}"><noscript><img src="a.jpg"></noscript><br title="'  # one picture, two tags
    html = "<ul>" + item.replace("{0}.jpg", lazy).format("", BY) + item.format("b", ZERO)
    html += "<li><img src=c.jpg></ul>"
    assert [c.licence for c in parse(html).candidates] == ["by", "cc0", ""]


def test_one_licence_beside_several_pictures_is_of_none():
    html = f'<article><img src=a.jpg><img src=b.jpg><a rel=license href="{BY}">x</a></article>'
    assert [c.licence for c in parse(html).candidates] == ["", ""]


def test_licence_of_the_head_is_for_pictures_about_which_nothing_else_is_said():
    head = f'<link rel="license" href="{BY}">'
    html = "<img src=a.jpg><a href=/p><img src=b.jpg></a>"
    first, second = parse(head + html).candidates
    assert (first.licence, first.licence_url, first.page) == ("by", BY, URL)
    assert (second.licence, second.page) == ("", "https://h.org/p")
    wiki = '<meta name="generator" content="MediaWiki 1.45"/>'
    assert [c.licence for c in parse(wiki + head + html).candidates] == ["", ""]
    two = f'<link rel="license" href="{ZERO}">'
    assert [c.licence for c in parse(head + two + html).candidates] == ["", ""]


def test_licence_in_a_footer_is_of_the_text():
    html = f'<img src=a.jpg><footer><a rel="license" href="{BY}">x</a></footer>'
    candidate = parse("<a href=/p/1><img src=t.jpg></a>").candidates[0]
    assert GALLERY.refine(candidate, page(html, "https://h.org/p/1")).licence == ""
    html = html.replace("footer", "section")
    assert GALLERY.refine(candidate, page(html, "https://h.org/p/1")).licence == "by"


# ---- Detail pages


def test_thumbnail_and_its_detail_page():
    (thumbnail,) = parse('<a href="/p/1"><img src="/t/1.jpg" alt="Lake 1"></a>').candidates
    assert thumbnail.page == "https://h.org/p/1"
    assert GALLERY.needs_detail(thumbnail)
    detail = (
        "<img src=/img/logo.png><h1>Anna and Ben</h1><img src=/full/1.jpg>"
        f'<p>by <a rel="author" href="/cleo">Cleo</a>, <a rel="license" href="{BY}">CC BY</a></p>'
        '<a href="/p/2"><img src="/t/2.jpg"></a>'
    )
    candidate = GALLERY.refine(thumbnail, page(detail, "https://h.org/p/1"))
    assert candidate.url == "https://h.org/full/1.jpg"
    assert candidate.page == thumbnail.page
    assert (candidate.licence, candidate.licence_url) == ("by", BY)
    assert (candidate.author, candidate.author_url) == ("Cleo", "https://h.org/cleo")
    assert (candidate.title, candidate.series) == ("Lake 1", "Cleo | Lake")
    assert not GALLERY.needs_detail(candidate)


@pytest.mark.parametrize(
    "detail",
    [
        json_ld(IMAGE) + "<img src=/hero.jpg>",
        "<img src=/hero.jpg><img src=/full/1.jpg srcset='/t/1.jpg 200w, /full/1.jpg 900w'>",
        "<img src=/hero.jpg><a href=/full/1.jpg><img src=/t/1.jpg></a>",
        "<meta property=og:image content=/full/1.jpg><img src=/hero.jpg><img src=/full/1.jpg>",
        "<meta property=og:image content=/full/1.jpg><a href=/p/2><img src=/t/2.jpg></a>",
    ],
)
def test_main_picture_of_a_detail_page(detail):
    (thumbnail,) = parse('<a href="/p/1"><img src="/t/1.jpg"></a>').candidates
    candidate = GALLERY.refine(thumbnail, page(detail, "https://h.org/p/1"))
    assert candidate.url == "https://h.org/full/1.jpg"


def test_detail_page_that_tells_nothing_changes_nothing():
    (thumbnail,) = parse('<a href="/p/1"><img src="/t/1.jpg" alt="Lake"></a>').candidates
    assert GALLERY.refine(thumbnail, page("<p>Gone.", "https://h.org/p/1")) == thumbnail


def test_licence_that_a_picture_states_itself_beats_that_of_its_page():
    gfdl = "https://www.gnu.org/licenses/fdl-1.3.html"
    detail = json_ld({**IMAGE, "license": gfdl}) + f'<a rel=license href="{BY}">x</a>'
    (thumbnail,) = parse('<a href="/p/1"><img src="/t/1.jpg"></a>').candidates
    candidate = GALLERY.refine(thumbnail, page(detail, "https://h.org/p/1"))
    assert (candidate.licence, candidate.licence_url) == ("", gfdl)


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
def test_links_that_are_no_detail_page(link):
    (candidate,) = parse(f"<a {link}><img src=a.jpg></a>").candidates
    assert candidate.page == ""
    assert not GALLERY.needs_detail(candidate)


# ---- Paging


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


def test_selectors():
    html = (
        '<meta property="og:image" content="og.jpg"><div class="card"><img src="a.jpg">'
        f'<a rel="license" href="{BY}">x</a></div><img src="b.jpg">'
        '<a class="more" href="/2">2</a><link rel="next" href="/3">'
    )
    listing = parse(html, HtmlGallery("div.card", "a.more"))
    assert [(c.url, c.licence) for c in listing.candidates] == [("https://h.org/g/a.jpg", "by")]
    assert listing.next == "https://h.org/2"
    listing = parse(html, HtmlGallery(".nothing"))
    assert listing.candidates == []
    assert "'.nothing'" in listing.note
    with pytest.raises(ValueError, match="not a CSS selector"):
        HtmlGallery("div[")


# ---- Opt-outs


@pytest.mark.parametrize(
    ("html", "directive"),
    [
        ('<meta name="robots" content="noimageai">', "meta robots: noimageai"),
        ('<META NAME="Robots" CONTENT="index,NOAI , follow">', "meta robots: noai"),
        ('<meta name="dclib" content="noindex">', "meta dclib: noindex"),
        ('<p><meta name="robots" content="follow none">', "meta robots: none"),
        ('<meta name="tdm-reservation" content="1">', "tdm-reservation: 1"),
        ('<meta name="tdm-reservation" content="0">', ""),
        ('<meta name="otherbot" content="noai">', ""),
        ('<meta name="robots" content="index, nofollow, noarchive, max-image-preview:large">', ""),
        ('<meta name="robots"><meta content="noai"><meta>', ""),
        ("noai", ""),
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
        "<img src='" + "-blank" * 100_000 + "' data-src=a.jpg>",
        "<!--" * 100_000 + "--><img src=a.jpg>",
    ],
    ids=["deep", "open-links", "commas", "brackets", "long-name", "comments"],
)
def test_hostile_markup_takes_no_time(html):
    start = time.process_time()
    assert urls(html) == ["https://h.org/g/a.jpg"]
    assert time.process_time() - start < 20  # not the square of its length


def test_no_more_than_a_thousand_images_of_a_page():
    listing = parse("".join(f"<img src={i}.jpg>" for i in range(1100)))
    assert len(listing.candidates) == 1000
    assert "1100" in listing.note


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"\xff\xd8\xff", "image/jpeg", "is image/jpeg, not a web page"),
        (b"{}", "application/json", "not a web page"),
        (b" " * 5_000_001, "text/html", "larger than 5 MB"),
    ],
)
def test_what_is_no_web_page(content, kind, words):
    for read in (GALLERY.parse, page_optouts):
        with pytest.raises(SourceError, match=words):
            read(page(content, kind=kind))


def test_pages_without_pictures_say_so():
    assert "no picture on" in parse("<p>Nothing here.").note
    script = '<div id="root"></div><script src="app.js"></script><script>' + "x" * 500 + "</script>"
    assert "JavaScript" in parse(script).note
    assert parse(b"").candidates == []


def test_start_takes_addresses_only():
    assert GALLERY.start(" https://h.org/g#x ") == "https://h.org/g"
    for text in ("happy couple", "", "ftp://h.org/", "file:///etc/passwd"):
        with pytest.raises(SourceError, match="no http"):
            GALLERY.start(text)


TAGS = [
    "<img src=a.jpg>",
    "<img src='",
    "srcset=a 1w,",
    ">",
    "<a href=/p>",
    "</a>",
    "<base href=x:>",
]
TAGS += [
    "<script type=application/ld+json>",
    '{"@type":"ImageObject","url":[{}]}',
    "</script>",
    "é",
]
TAGS += ["<a rel=license href='//[", "<noscript>", "<picture><source srcset=b>", "<?xml ?>", "\0"]
TAGS += ["<figure>", "<figcaption>", "<link rel=next href=//h.org:x>", "<meta name=robots content>"]


@given(st.lists(st.sampled_from(TAGS) | st.text(max_size=4), max_size=14).map("".join))
def test_no_markup_raises_anything(html):
    listing = parse(html.encode("utf-8", "replace"))
    page_optouts(page(html.encode("utf-8", "replace")))
    for candidate in listing.candidates:
        assert re.match("https?://[^/]", candidate.url)
        GALLERY.refine(candidate, page(html.encode("utf-8", "replace"), "https://h.org/p"))
    assert listing.candidates or listing.note
