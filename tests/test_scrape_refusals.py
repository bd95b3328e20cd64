"""Refusals in a whole collection, beside hostile.py: what is asked again, and what is not."""

import sys

import pytest
from gathering import gather

from dclib.scrape import fetch
from dclib.scrape.__main__ import main
from dclib.scrape.gallery import Gallery
from dclib.scrape.html import HtmlGallery


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.001)


def run(site, folder):
    """Rows of a collection from a gallery, without those that it lists twice."""
    return [row for row in gather(site, folder) if row["reason"] != "listed before"]


class Guarded(Gallery):
    """Answers addresses that begin with `where` by `instead`, while that is set."""

    where, instead = "", None

    def answer(self, handler, path, query):
        if self.instead and path.startswith(self.where):
            handler.send(*self.instead)
        else:
            super().answer(handler, path, query)


KIND = "text/html; charset=utf-8"
CHECK = b"<title>Just a moment...</title><meta name=robots content=noindex,nofollow><img src=i.png>"
CHECKS = {
    "challenge": (CHECK, KIND, 200),
    "challenge by a header": (CHECK, KIND, 200, {"X-Robots-Tag": "noindex"}),
    "unknown words": (b"<!DOCTYPE html><p>Un instant<script src=x.js></script>", KIND, 200),
    "empty": (b"", KIND, 200),
    "empty, without a kind": (b"", "", 200),
    "403": (CHECK, KIND, 403),
    "202": (CHECK, KIND, 202),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A site, and (address, reason) of all that it offers while nothing guards it."""
    with Guarded(n=2) as site:
        yield site, reasons(run(site, tmp_path_factory.mktemp("undisturbed")))


def reasons(rows):
    return {(row["url"], row["reason"]) for row in rows}


@pytest.mark.parametrize("where", ["/search", "/photo", "/media"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_bot_check_is_not_the_last_word(undisturbed, tmp_path, check, where):
    site, expected = undisturbed
    site.where, site.instead = where, CHECKS[check]
    rows = run(site, tmp_path)
    site.instead = None
    assert not any(row["stage"] == "kept" for row in rows)
    assert where != "/search" or not rows
    assert reasons(run(site, tmp_path)) == expected


def test_a_page_that_is_not_understood_is_the_fault_of_its_own_row(tmp_path, monkeypatch):
    refine = HtmlGallery.refine

    def refine_some(self, candidate, page):
        if page.url.endswith(f"/photo/{first.number}"):
            raise KeyError("licence")
        return refine(self, candidate, page)

    monkeypatch.setattr(HtmlGallery, "refine", refine_some)
    with Gallery(n=6) as site:
        first = next(d for d in site.drawings if not d.trap)
        rows = {row["page"].rpartition("/")[2]: row for row in run(site, tmp_path)}
    assert rows[str(first.number)]["reason"] == "page unreadable"
    assert any(row["stage"] == "kept" for row in rows.values())


def test_a_host_that_rests_costs_no_try(tmp_path):
    with Guarded(n=4) as site:
        site.where, site.instead = "/media", (b"", "", 503, {"Retry-After": "3000"})
        waiting = [row for row in run(site, tmp_path) if row["reason"] == "host busy"]
    assert waiting
    assert {(row["state"], row["tries"]) for row in waiting} == {("later", 0)}


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--per-query", number] for number in ("-1", "0", "nan", "1e3", "9" * 30, "")),
        *(["--seed", number] for number in ("-1", "inf", "9" * 30, "x")),
    ],
)
def test_numbers_of_the_command_have_a_range(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["dclib.scrape", "raw", "data", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "it must be a whole number from " in said
    assert "e+" not in said  # what it must be can be typed


def test_nobody_is_forgotten_while_a_folder_is_divided(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "raw", "data", "--divide", "--forget", "http://a.test/"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--forget: not allowed with argument --divide" in capsys.readouterr().err


def test_phrases_that_cannot_be_read_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for queries, words in ((tmp_path, "not readable"), (tmp_path / "file" / "q.toml", "written")):
        command = ["", tmp_path / "raw", tmp_path / "d", "--contact", "ada@uni.test", "--queries"]
        monkeypatch.setattr(sys, "argv", [*map(str, command), str(queries)])
        with pytest.raises(SystemExit, match=words):
            main()
