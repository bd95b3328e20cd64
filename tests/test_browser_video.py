"""The annotated film as a person meets it: played in Chromium."""

import http.server
import threading
from functools import partial

import pytest
from browser import needs_chromium, new_page, open_browser, show_state

from dclib.checkpoint import load_checkpoint
from dclib.drawn import render_film
from dclib.video import score_video
from dclib.video.export import save_mp4

PAGE = """<!doctype html><title>film</title>
<video id="film" src="film.mp4" muted controls width="640"></video>"""

PLAY = """async () => {
    const film = document.getElementById("film");
    film.playbackRate = 2;
    await film.play();
    await new Promise((done) => { film.onended = done; setTimeout(done, 20000); });
    return {time: film.currentTime, ended: film.ended, duration: film.duration,
            size: [film.videoWidth, film.videoHeight], error: film.error && film.error.message,
            frames: film.getVideoPlaybackQuality().totalVideoFrames};
}"""


@pytest.fixture
def site(tmp_path, drawn_checkpoint):
    """A drawn film, scored and annotated, behind a server on loopback."""
    plan = (("couple", (("happy", 2),)), ("dark", ((None, 2),)))
    render_film(tmp_path / "drawn.mp4", plan=plan, size=96)
    result = score_video(tmp_path / "drawn.mp4", load_checkpoint(drawn_checkpoint), progress=False)
    save_mp4(result, tmp_path / "drawn.mp4", tmp_path / "film.mp4")
    (tmp_path / "index.html").write_text(PAGE)
    handler = partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@needs_chromium
def test_the_film_plays_to_its_end(playwright, site):
    with open_browser(playwright) as browser, new_page(browser) as page:
        page.goto(site)
        page.wait_for_function("document.getElementById('film').readyState >= 2")
        played = page.evaluate(PLAY)
        show_state(page, "08_film.png")
    assert played["error"] is None and played["ended"]
    assert played["time"] == pytest.approx(4, abs=0.2) == played["duration"]
    assert played["size"] == [192, 166] and played["frames"] > 10
