"""Licences are read without guessing; the credits hold no markup of strangers."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dclib.scrape.licences import ALLOWED, NAMES, agreed, attribution, deed, licence_key

CC = "https://creativecommons.org/"


SPELLINGS = {  # with " / " between them
    "by": "CC BY 2.0 Generic / CC_BY_4.0 / Creative Commons Attribution 4.0 International License",
    "by-sa": "CC BY-SA 4.0 / cc-by-sa-4.0 / cc-by-sa-3.0-de / cc-by-sa-4.0,3.0,2.5,2.0,1.0 / "
    "CC-BY-SA-2.1-JP / CC\u2011BY\u2013SA 4.0 / cc-by-sa-3.0-migrated",
    "by-nc": "CC BY-NC 2.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0",  # as in SPDX
    "by-nc-nd": "by-nc-nd / Attribution-NonCommercial-NoDerivs 2.0 Generic",
    "cc0": "  cc0   / CC0 1.0 / CC0-1.0 / CC0 1.0 Universal",
    "pdm": "Public domain / PD / Public Domain Mark 1.0",
    # not sure, so not known
    "": "cc-by-2.0-nc / CC BY 2.0 nd / CC NC-SA 1.0 / by-nc-nc / nc-sampling+ / devnations / "
    "zero / GFDL / GFDL, CC BY-SA 3.0 / "
    "CC BY or CC BY-NC / not CC BY 4.0 / CC BY-SA 4.0 for the text / "
    "Attribution / No restrictions / PD-US / copyrighted, not public domain / by-nd-sa / "
    "sampling+ / all rights reserved / ",
}
DEEDS = {  # paths on creativecommons.org
    "by": "licenses/by/3.0/de/deed.de licenses/by/2.5/scotland/legalcode "
    "licenses/by/3.0/igo/legalcode.txt",
    "by-sa": "licenses/by-sa/4.0/deed.en",
    "by-nc-sa": "licenses/by-nc-sa/2.0?x=1",
    "cc0": "publicdomain/zero/1.0/",
    "pdm": "publicdomain/mark/1.0/",
    "": "licenses/nc/1.0/ licenses/nd/1.0/ licenses/sa/1.0/ licenses/nd-nc/1.0/ "
    "licenses/nc-sa/1.0/ licenses/sampling+/1.0/ licenses/devnations/1.0/ licenses/publicdomain/ "
    "licenses/pd/1.0/ licenses/by-nc-sampling/1.0/ licenses/by/../by-nc/4.0/ licenses/by/4.0/nc/ "
    "licenses/by/9.9/ licenses/by%2Dnc/4.0/ licenses/",
}
ADDRESSES = [
    ("http://www.creativecommons.org/licenses/by-nd-nc/1.0", "by-nc-nd"),
    ("//creativecommons.org/licenses/by/3.0/de/", "by"),
    (f"https://evil.org/{CC}licenses/by/4.0/", ""),
    ("https://creativecommons.org.evil.org/licenses/by/4.0/", ""),
    ("https://evil.org@creativecommons.org/licenses/by/4.0/", ""),
    ("https://en.wikipedia.org/wiki/Public_domain", ""),
    (None, ""),
    (["by"], ""),
]
ADDRESSES += [(text, key) for key in SPELLINGS for text in SPELLINGS[key].split(" / ")]
ADDRESSES += [(CC + path, key) for key in DEEDS for path in DEEDS[key].split()]


@pytest.mark.parametrize(("text", "key"), ADDRESSES)
def test_licence_key(text, key):
    assert licence_key(text) == key


BY = f"{CC}licenses/by/4.0/"


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ([BY], ("by", BY)),
        ([BY, "CC BY 4.0", "", None], ("by", BY)),
        (["cc-by-sa-3.0-de"], ("by-sa", f"{CC}licenses/by-sa/3.0/")),
        (["//creativecommons.org/licenses/by/2.0/"], ("by", f"{CC}licenses/by/2.0/")),
        (["pd"], ("pdm", "")),
        ([BY, "CC BY-NC 4.0"], ("", "")),
        ([BY, f"{CC}licenses/nc/1.0/"], ("", "")),
        ([BY, "free for personal use"], ("", "")),
        ([BY, 7], ("", "")),
        ([], ("", "")),
    ],
)
def test_one_contradiction_and_there_is_no_licence(stated, found):
    assert agreed(*stated) == found


@pytest.mark.parametrize("code", ["nc", "nd", "sa", "sampling", "devnations", "by-x", "+", "-", ""])
@given(st.lists(st.sampled_from(["by", "nc", "nd", "sa", "sampling", "x", "+"]), max_size=4))
def test_only_known_codes_are_read(code, more):
    """A second implementation: the list of the deeds that there are."""
    code = "-".join([code, *more])
    known = {"by-nd-nc": "by-nc-nd"} | {name: name for name in NAMES if name.startswith("by")}
    assert licence_key(f"{CC}licenses/{code}/1.0/") == known.get(code, "")
    assert licence_key(f"CC {code} 1.0") == known.get(code, "")


def test_only_what_may_be_adapted_is_allowed_and_deeds_are_read_back():
    assert {"cc0", "pdm", "by", "by-sa"} == ALLOWED
    for key in NAMES:
        for version in ("1.0", "2.0", "2.5", "3.0", "4.0", "", None, "9.9", "../x"):
            if address := deed(key, version):
                assert licence_key(address) == key
    assert deed("by-sa", "2.0") == f"{CC}licenses/by-sa/2.0/"
    assert deed("by", "") == deed("pdm", "1.0") == deed("", "4.0") == ""


@given(st.text(max_size=40) | st.sampled_from(sorted(NAMES)))
def test_no_other_key_comes_out(text):
    assert licence_key(text) in {"", *NAMES}


# ---- Credits


ROW = {
    "file": "train/happy/0123abcd.jpg",
    "title": "At the lake",
    "author": "Anna",
    "author_url": "https://h.org/anna",
    "page": "https://h.org/p/1",
    "url": "https://h.org/1.jpg",
    "licence": "by-sa",
    "licence_url": f"{CC}licenses/by-sa/4.0/",
    "source": "openverse",
}


def test_credit_has_title_author_source_and_licence():
    text = attribution([ROW, {**ROW, "file": "b.jpg", "licence": "cc0", "licence_url": ""}])
    assert "[At the lake](https://h.org/p/1) by [Anna](https://h.org/anna)" in text
    assert f"[CC BY-SA 4.0]({CC}licenses/by-sa/4.0/)" in text
    assert "train/happy/0123abcd.jpg" in text
    assert "resized, re-encoded" in text
    assert "1 CC BY-SA, 1 CC0" in text
    assert "Share-alike" in text
    assert "Share-alike" not in attribution([{**ROW, "licence": "by"}])

    row = {**ROW, "title": "", "author": None, "author_url": "", "page": "", "licence_url": None}
    text = attribution([row])
    assert "[Untitled](https://h.org/1.jpg) by unknown author, CC BY-SA, from openverse" in text
    assert attribution([]).startswith("# Attribution")


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "](https://evil.org) [x",
    "a\n\n# heading\r\n- item\u2028| x |",
    "`code` *bold* _it_ ~~x~~ ![i](https://evil.org/i.png)",
    "https://evil.org www.evil.org <https://evil.org>",
    "&lt;script&gt; &#60;script&#62;",
    "\\[x](https://evil.org)",
    "\u202egpj.exe \u0007",
    "=HYPERLINK(1)",
    "[^1] [x]: https://evil.org",
]


class Tags(HTMLParser):
    """Collects what acts in an HTML page: tags with their addresses, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes).get("href", "")))

    def handle_data(self, data):
        self.text += data


def rendered(text):
    """What a Markdown renderer makes of a text."""
    mistune = pytest.importorskip("mistune", reason="renders Markdown; comes with nbconvert")
    tags = Tags()
    tags.feed(mistune.create_markdown(escape=False, plugins=["url", "table", "footnotes"])(text))
    tags.close()
    return tags


@given(
    st.sampled_from(HOSTILE) | st.text(alphabet="<>[]()!`*_\\&;#|\n ahtps:/.w@~^=-+", max_size=30)
)
@example("- :")  # would begin a list
@example("a\\")
def test_titles_and_names_show_as_text_and_do_nothing(hostile):
    plain = [tag for tag, _ in rendered(attribution([ROW])).tags]
    row = {**ROW, "title": hostile, "author": hostile, "source": hostile, "file": hostile}
    shown = rendered(attribution([row]))
    allowed = {ROW["page"], ROW["author_url"], ROW["licence_url"], ""}
    assert [tag for tag, _ in shown.tags] == plain
    assert {address for _, address in shown.tags} <= allowed
    visible = "".join(c for c in hostile if c.isprintable() or c.isspace())
    visible = " ".join(visible.split())
    if visible:
        credit = f"Image {visible}: {visible} by {visible}, CC BY-SA 4.0, from {visible}"
        assert credit in " ".join(shown.text.split())


@given(st.sampled_from(HOSTILE) | st.text(alphabet="ahtps:/.()<>\"' []\n*_", max_size=30))
@example("javascript:alert(1)")
@example("https://h.org/a_(b)?c=[d]&e='f'")
@example('https://h.org/" onclick="x')
def test_addresses_become_harmless_links_or_none(hostile):
    text = attribution([{**ROW, "page": hostile, "author_url": hostile, "licence_url": hostile}])
    for tag, address in rendered(text).tags:
        assert tag in {"h1", "p", "ul", "li", "a"}
        assert address == "" or re.fullmatch(r"https?://[^\s<>\"()]+", address)


def test_credits_take_one_line_each():
    rows = [{**ROW, "title": text, "author": text, "file": text} for text in HOSTILE]
    lines = attribution(rows).splitlines()
    assert sum(line.startswith("- ") for line in lines) == len(HOSTILE)
    assert not any("\u202e" in line or "<" in line for line in lines)
