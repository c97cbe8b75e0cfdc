"""Pages on the disk."""

from asymseg.pages import save_page


def test_a_page_is_written_whatever_the_files_are_called(tmp_path):
    """Names of files may hold bytes that are no UTF-8; Python stands surrogates in for them."""
    save_page(tmp_path / "page.html", "<p>stra\udcdfe, Straße</p>\n")
    assert (tmp_path / "page.html").read_bytes() == "<p>stra?e, Straße</p>\n".encode()
