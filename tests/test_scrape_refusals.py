"""Refusals in a whole collection: what is asked again, what is not, and whom a refusal concerns."""

import io
import sys

import pytest
from PIL import Image

from dclib.data import DRAWN
from dclib.scrape import fetch
from dclib.scrape.__main__ import main
from dclib.scrape.collect import collect, make_plan
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT, Gallery
from dclib.scrape.html import HtmlGallery


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.001)


def run(site, folder):
    """Rows of a collection from a gallery, without those that it lists twice."""
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    plan = make_plan((HtmlGallery(name=DRAWN), site.queries))
    rows = collect(folder, plan, fetcher, progress=False)
    return [row for row in rows if row["reason"] != "listed before"]


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


@pytest.mark.parametrize("where", ["/search", "/photo", "/media"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_bot_check_is_not_the_last_word(tmp_path, check, where):
    with Guarded(n=2) as site:
        expected = {(row["url"], row["reason"]) for row in run(site, tmp_path / "undisturbed")}
        site.where, site.instead = where, CHECKS[check]
        rows = run(site, tmp_path / "checked")
        assert not any(row["stage"] == "kept" for row in rows)
        assert where != "/search" or not rows
        site.instead = None
        again = run(site, tmp_path / "checked")
    assert {(row["url"], row["reason"]) for row in again} == expected


def test_a_page_that_refuses_for_good_is_not_asked_again(tmp_path):
    """It shows its picture, so that it is no bot check."""
    with Guarded(n=2) as site:
        site.where, mark = "/photo", b"<meta name=robots content=noai><img src=/media/1.jpg>"
        site.instead = (mark, KIND, 200)
        rows = run(site, tmp_path)
        assert {(row["state"], row["reason"]) for row in rows} == {("refused", "opt-out")}


@pytest.mark.parametrize("fault", ["deed", "bug"])
def test_an_odd_page_is_the_fault_of_its_own_row(tmp_path, monkeypatch, fault):
    odd = b"https://creativecommons.org/licenses/nc-sampling/1.0/"
    refine = HtmlGallery.refine

    def refine_some(self, candidate, page):
        if fault == "bug" and odd in page.content:
            raise KeyError("licence")
        return refine(self, candidate, page)

    class Odd(Gallery):
        def _detail(self, drawing):
            page = super()._detail(drawing)
            known = b"https://creativecommons.org/licenses/by/4.0/"
            return page.replace(known, odd) if drawing.number == first.number else page

    monkeypatch.setattr(HtmlGallery, "refine", refine_some)
    with Odd(n=6) as site:
        first = next(d for d in site.drawings if not d.trap and d.licence == "CC BY 4.0")
        rows = {row["page"].rpartition("/")[2]: row for row in run(site, tmp_path)}
    expected = "page unreadable" if fault == "bug" else "licence unknown"
    assert rows[str(first.number)]["reason"] == expected
    assert any(row["stage"] == "kept" for row in rows.values())


@pytest.mark.parametrize("moved", [False, True])
def test_a_picture_that_says_it_has_gone_is_no_couple(tmp_path, moved):
    """Sent for several pictures, or where several addresses lead; the others stay."""

    class Gone(Gallery):
        def _send_media(self, handler, drawing):
            if drawing.number in gone and moved:
                handler.send(b"", "", 302, {"Location": "/there/gone.jpg"})
            elif drawing.number in gone:
                handler.send(self.jpeg(self.by_number[gone[0]]), "image/jpeg")
            else:
                super()._send_media(handler, drawing)

        def answer(self, handler, path, query):
            if path == "/there/gone.jpg":
                handler.send(self.jpeg(self.by_number[gone[0]]), "image/jpeg")
            else:
                super().answer(handler, path, query)

    with Gone(n=8) as site:
        fine = [drawing for drawing in site.drawings if not drawing.trap]
        gone = [drawing.number for drawing in fine if drawing.label == "happy"][:3]
        rows = {row["page"].rpartition("/")[2]: row for row in run(site, tmp_path)}
    assert {rows[str(number)]["reason"] for number in gone} == {"one file, several pages"}
    assert any(row["stage"] == "kept" for row in rows.values())


def test_a_picture_whose_own_metadata_forbid_training(tmp_path):
    class Marked(Gallery):
        def jpeg(self, drawing):
            buffer = io.BytesIO()
            value = "PROHIBITED" if drawing.number % 2 else "ALLOWED"
            xmp = f'<a plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-{value}"/>'.encode()
            Image.open(io.BytesIO(super().jpeg(drawing))).save(buffer, "JPEG", xmp=xmp)
            return buffer.getvalue()

    with Marked(n=8) as site:
        fine = {d.number for d in site.drawings if d.trap == "" and d.licence}
        rows = {int(row["page"].rpartition("/")[2]): row for row in run(site, tmp_path)}
    for number in fine:
        assert (rows[number]["reason"] == "opt-out") == number % 2


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
    assert "it must be" in capsys.readouterr().err


def test_phrases_that_cannot_be_read_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for queries, words in ((tmp_path, "not readable"), (tmp_path / "file" / "q.toml", "written")):
        monkeypatch.setattr(
            sys, "argv", ["dclib.scrape", str(tmp_path / "raw"), str(tmp_path / "d")]
        )
        sys.argv += ["--contact", "ada@uni.test", "--queries", str(queries)]
        with pytest.raises(SystemExit, match=words):
            main()
