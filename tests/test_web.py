from PIL import Image

from dclib.web.html import data_uri, error_html, link, notes_html, status_html


def test_sentences_and_names_are_escaped():
    assert notes_html(["Only <drawings>."]) == '<p class="dc-note">Only &lt;drawings&gt;.</p>'
    assert error_html("<b>milk") == '<p class="dc-error">&lt;b&gt;milk</p>'
    assert "<p>&lt;b&gt;</p>" in status_html("<b>", answered=3)
    assert 'data-answered="3"' in status_html("<b>", answered=3)
    assert 'download="a&lt;b.json"' in link("a<b.json", b"{}")


def test_pictures_and_files_are_in_the_page_itself():
    assert data_uri(Image.new("RGB", (2, 2))).startswith("data:image/png;base64,")
    assert data_uri(Image.new("RGB", (2, 2)), "JPEG").startswith("data:image/jpeg;base64,")
    assert 'href="data:application/json;base64,e30="' in link("report.json", b"{}")
