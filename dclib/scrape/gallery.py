"""A small stock-photo site of drawn couples on this computer: to practise on without a network.

It has what real ones have: pages of results with lazy images, pages of single pictures with licence
and author, robots.txt, and pictures that must not or cannot be used. Whoever made them is invented.
"""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

from PIL import ImageOps

from dclib.data import CLASSES
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import encode

PER_PAGE = 20
SIDE, THUMB_SIDE = 448, 160  # pixels
CONTACT = "nobody@gallery.invalid"  # for a `Fetcher`; only this computer hears it
LICENCES = {
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY-NC 4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "": "",
}
AUTHORS = [
    f"{first} {last}"
    for last in ("Crayon", "Inkwell", "Pastel", "Sketch")
    for first in ("Ada", "Bo", "Cleo", "Dara", "Eli", "Finn", "Gus", "Hana", "Ivo", "Juno")
]
# What is wrong with some of the pictures, and with how many of a hundred.
TRAPS = {"non-commercial": 5, "unlicensed": 3, "re-encoded": 3, "mirrored": 3, "other label": 2}
TRAPS |= {"small": 2, "cut off": 2, "noai": 2, "private": 2, "gone": 1, "login": 1, "busy": 1}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}
<style>body{{font:16px sans-serif;margin:2em}}figure{{display:inline-block;margin:.5em}}
img{{display:block}}</style></head><body><h1>{title}</h1>{body}</body></html>"""


@dataclass(frozen=True)
class Drawing:
    """One entry of the site. `scene` is the number of the drawing in `dclib.drawn`'s set."""

    number: int
    scene: int
    label: str
    author: str
    licence: str
    trap: str = ""

    @property
    def title(self) -> str:
        """What the site calls it."""
        return f"A {self.label} couple, drawn {self.scene}"

    @property
    def media(self) -> str:
        """Path of its file on the site."""
        return f"/{'private' if self.trap == 'private' else 'media'}/{self.number}.jpg"


class Gallery:
    """The site; use it in a `with` statement.

    Args:
        n: drawings without a fault, half of them happy; about a quarter as many have one.
        port: where to listen; 0 takes any that is free. Addresses are only the same again, and a
            collection can only go on later, with the same port.

    `opening` is what a `Fetcher` needs to be allowed in, `asked` a Counter of requested paths.
    """

    def __init__(self, n: int = 120, port: int = 0) -> None:
        self.port = port
        self.drawings = make_catalogue(n)
        self.asked: Counter[str] = Counter()
        self._files: dict[int, bytes] = {}
        self._painter = ThreadPoolExecutor(1)  # one thread, so that one heap has to hold a drawing
        self.by_number = {drawing.number: drawing for drawing in self.drawings}

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"gallery": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.opening = ("127.0.0.1", self._server.server_port)
        self.url = "http://{}:{}".format(*self.opening)
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def queries(self) -> dict[str, list[str]]:
        """Two searches a class, as `dclib.scrape.queries.load_queries` would give pages."""
        return {
            label: [f"{self.url}/search?q={quote(f'{label} {word}')}" for word in words]
            for label, words in zip(CLASSES, (("couple", "love"), ("couple", "quarrel")))
        }

    def answer(self, handler: "_Handler", path: str, query: dict[str, list[str]]) -> None:
        """Send the answer to one request; a subclass may send others before."""
        kind, _, name = path.strip("/").partition("/")
        number = name.removesuffix(".jpg")
        drawing = self.by_number.get(int(number)) if number.isdigit() else None
        if path == "/robots.txt":
            handler.send(b"User-agent: *\nDisallow: /private/\n", "text/plain")
        elif kind == "search":
            handler.send(self._results(query.get("q", [""])[0], int(query.get("page", ["1"])[0])))
        elif drawing and kind == "photo":
            handler.send(self._detail(drawing))
        elif drawing and kind == "thumb":
            image = draw_scene(sample_scene(0, drawing.scene)[0], THUMB_SIDE)
            handler.send(encode(image, quality=70), "image/jpeg")
        elif drawing and path == drawing.media:
            self._send_media(handler, drawing)
        else:
            handler.send(b"Nothing is here.", "text/plain", 404)

    def _results(self, phrase: str, number: int) -> bytes:
        """A page of results. Both searches of a class overlap by a third, as searches do."""
        label, _, word = phrase.partition(" ")
        found = [d for d in self.drawings if d.label == label]
        third = len(found) // 3
        found = found[: 2 * third] if word == "couple" else found[third:]
        shown = found[(number - 1) * PER_PAGE : number * PER_PAGE]
        cards = "".join(
            f'<figure><a href="/photo/{d.number}"><img src="{PIXEL}" data-src="/thumb/{d.number}'
            f'.jpg" loading="lazy" width="{THUMB_SIDE}" height="{THUMB_SIDE}" alt="{d.title}"></a>'
            f'<noscript><img src="/thumb/{d.number}.jpg"></noscript>'
            f"<figcaption>{d.author}</figcaption></figure>"
            for d in shown
        )
        following = f"/search?q={quote(phrase)}&amp;page={number + 1}"
        more = f'<nav><a rel="next" href="{following}">More</a></nav>'
        return _page(f"{phrase}, page {number}", cards + more * (number * PER_PAGE < len(found)))

    def _detail(self, drawing: Drawing) -> bytes:
        described = {
            "@context": "https://schema.org",
            "@type": "ImageObject",
            "contentUrl": drawing.media,
            "name": drawing.title,
            "creator": {"@type": "Person", "name": drawing.author},
        }
        licence = "No licence is given."
        if drawing.licence:
            described["license"] = LICENCES[drawing.licence]
            link = f'<a rel="license" href="{LICENCES[drawing.licence]}">{drawing.licence}</a>'
            licence = f"Licence: {link}."
        head = f'<script type="application/ld+json">{json.dumps(described)}</script>'
        head += f'<meta property="og:image" content="{drawing.media}">'
        body = f'<img src="{drawing.media}" alt="{drawing.title}"><p>By {drawing.author}. {licence}'
        return _page(drawing.title, body, head)

    def _send_media(self, handler: "_Handler", drawing: Drawing) -> None:
        if drawing.trap == "gone":
            handler.send(b"Gone.", "text/plain", 410)
        elif drawing.trap == "login":
            handler.send(_page("Please log in", "Members only."))
        elif drawing.trap == "busy" and self.asked[drawing.media] == 1:
            handler.send(b"Busy.", "text/plain", 503, {"Retry-After": "0"})
        else:
            headers = {"X-Robots-Tag": "noai"} if drawing.trap == "noai" else None
            handler.send(self.jpeg(drawing), "image/jpeg", headers=headers)

    def jpeg(self, drawing: Drawing) -> bytes:
        """The file of a drawing, made when it is first asked for."""
        if drawing.number not in self._files:
            self._files[drawing.number] = self._painter.submit(_draw, drawing).result()
        return self._files[drawing.number]


def make_catalogue(n: int) -> list[Drawing]:
    """`n` drawings without a fault and some with one, mixed, numbered from 1."""
    rng = random.Random(0)
    fine = ["CC BY 4.0", "CC BY-SA 4.0", "CC0"]
    entries = [
        Drawing(0, scene, CLASSES[scene % 2], AUTHORS[scene // 2 % len(AUTHORS)], rng.choice(fine))
        for scene in range(n)
    ]
    scene = n
    for trap, share in TRAPS.items():
        for _ in range(max(1, round(share * n / 100))):
            if trap in ("re-encoded", "mirrored", "other label"):
                entry = replace(rng.choice(entries[:n]), author=rng.choice(AUTHORS), trap=trap)
                if trap == "other label":
                    entry = replace(entry, label=CLASSES[1 - CLASSES.index(entry.label)])
            else:
                licence = {"non-commercial": "CC BY-NC 4.0", "unlicensed": ""}.get(trap, fine[0])
                entry = Drawing(0, scene, CLASSES[scene % 2], rng.choice(AUTHORS), licence, trap)
                scene += 1
            entries.append(entry)
    rng.shuffle(entries)
    return [replace(entry, number=number) for number, entry in enumerate(entries, 1)]


def _draw(drawing: Drawing) -> bytes:
    side = 120 if drawing.trap == "small" else SIDE
    image = draw_scene(sample_scene(0, drawing.scene)[0], side)
    image = ImageOps.mirror(image) if drawing.trap == "mirrored" else image
    data = encode(image, quality=60 if drawing.trap in ("re-encoded", "other label") else 90)
    return data[: len(data) // 2] if drawing.trap == "cut off" else data


def _page(title: str, body: str, head: str = "") -> bytes:
    return PAGE.format(title=escape(title), head=head, body=body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the other side has hung up
            super().handle_error(request, address)


class _Handler(BaseHTTPRequestHandler):
    gallery: Gallery
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes; the second would wait 40 ms

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.gallery.asked[parts.path] += 1
        self.gallery.answer(self, parts.path, parse_qs(parts.query))

    def send(
        self,
        body: bytes,
        kind: str = "text/html; charset=utf-8",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A whole answer: status, headers and body."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: the notebook's output belongs to the scraper."""
