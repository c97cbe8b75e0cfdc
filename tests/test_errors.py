"""Messages for users: one line that can be printed, whatever a file has put into it."""

from asymseg.errors import AsymsegError, DataError


def test_a_message_stays_as_it_is():
    assert str(DataError("a.png: 3 channels, not 4; Größe  µm")) == "a.png: 3 channels, not 4; Größe  µm"


def test_what_moves_a_terminal_is_shown_by_its_code():
    assert str(AsymsegError("a\x1b[2J\0\u2028b\r\nc\ud800.png")) == "a\\x1b[2J\\x00 b c\\ud800.png"


def test_of_a_long_message_both_ends_stay():
    text = str(AsymsegError("what " + "x" * 10_000 + " the cure"))
    assert text.startswith("what xxx")
    assert text.endswith("xxx the cure")
    assert len(text) <= 2005
