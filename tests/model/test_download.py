"""A download against a server that breaks off, lies, forgets and serves something else."""

import hashlib
import socket

import numpy as np
import pytest
from file_server import serving

from asymseg.errors import CheckpointError, ConfigError
from asymseg.model import download as module
from asymseg.model.download import download, file_sha256, mirrored

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting between tries, no proxy on the way to this machine."""
    monkeypatch.setattr(module, "PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "ASYMSEG_MIRROR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "weights.pth"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


def get(server, target, sha256=SHA[:8]):
    download(f"{server.address}/ann/weights.pth", target, sha256)


def test_it_is_fetched_checked_and_alone(server, target):
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert left(target) == ["weights.pth"]
    assert server.requests == [("/ann/weights.pth", "")]


def test_what_is_there_and_right_is_not_fetched_again(server, target):
    get(server, target)
    get(server, target)
    assert len(server.requests) == 1
    target.write_bytes(OTHER)
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_progress_reaches_the_whole(server, target, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100_000)
    seen = []
    download(f"{server.address}/x", target, SHA, lambda done, total: seen.append((done, total)))
    assert seen == [(100_000, 300_000), (200_000, 300_000), (300_000, 300_000)]


def test_a_connection_that_breaks_goes_on_where_it_was(server, target):
    server.break_off_after = [100_000, 150_000]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=100000-", "bytes=250000-"]


def test_a_broken_download_goes_on_in_the_next_call(server, target):
    server.break_off_after = [120_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match=r"broke off at 120000 of 300000 bytes.*120000 bytes are kept") as caught:
        get(server, target)
    assert "ASYMSEG_MIRROR" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(target) == ["weights.pth.part", "weights.pth.part.version"]
    server.requests.clear()
    get(server, target)
    assert [asked for _, asked in server.requests] == ["bytes=120000-"]
    assert target.read_bytes() == CONTENT
    assert left(target) == ["weights.pth"]


def test_progress_goes_on_from_what_is_there(server, target, monkeypatch):
    server.break_off_after = [120_000, 0, 0, 0]
    with pytest.raises(CheckpointError):
        get(server, target)
    seen = []
    download(f"{server.address}/x", target, SHA, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (300_000, 300_000)
    assert all(total == 300_000 for _, total in seen)


def test_a_server_without_ranges_starts_over(server, target):
    server.takes_ranges = False
    server.break_off_after = [120_000]
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_always_breaks_is_given_up(server, target):
    server.takes_ranges = False
    server.break_off_after = [120_000] * 50
    with pytest.raises(CheckpointError, match="broke off at 120000 of 300000"):
        get(server, target)
    assert len(server.requests) == 1 + module.PATIENCE


@pytest.mark.parametrize("etag", ['"two"', ""])
def test_a_part_of_another_version_is_not_gone_on_with(server, target, etag):
    server.content, server.break_off_after = OTHER, [120_000, 0, 0, 0]
    with pytest.raises(CheckpointError):
        get(server, target, "")
    server.content, server.etag = CONTENT, etag
    get(server, target, "")  # no hash to find the mixture by
    assert target.read_bytes() == CONTENT


def test_a_server_that_goes_on_with_another_version_is_not_believed(server, target):
    server.content, server.break_off_after = OTHER, [120_000, 0, 0, 0]
    with pytest.raises(CheckpointError):
        get(server, target, "")
    server.content, server.etag, server.heeds_if_range = CONTENT, '"two"', False
    get(server, target, "")
    assert target.read_bytes() == CONTENT


def test_a_part_of_which_nothing_is_known_is_not_gone_on_with(server, target):
    target.parent.mkdir()
    target.with_name("weights.pth.part").write_bytes(OTHER[:1000])
    get(server, target, "")
    assert target.read_bytes() == CONTENT


def test_a_server_that_keeps_no_versions_starts_over(server, target):
    server.etag = ""
    server.break_off_after = [120_000]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", ""]


def test_a_server_that_sends_another_range_is_not_believed(server, target):
    server.break_off_after, server.wrong_range = [120_000], True
    get(server, target, "")
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"one"', ""])
def test_a_part_that_is_complete_needs_no_byte(server, target, etag):
    target.parent.mkdir()
    target.with_name("weights.pth.part").write_bytes(CONTENT)
    target.with_name("weights.pth.part.version").write_text('"one"')
    server.etag = etag
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server, target):
    target.parent.mkdir()
    target.with_name("weights.pth.part").write_bytes(CONTENT + b"more")
    target.with_name("weights.pth.part.version").write_text('"one"')
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_removed(server, target):
    server.content = OTHER
    wrong = hashlib.sha256(OTHER).hexdigest()[:8]
    with pytest.raises(CheckpointError, match=f"begins with {wrong} and not {SHA[:8]}"):
        get(server, target)
    assert left(target) == []
    server.content = CONTENT
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_an_empty_answer_is_no_file(server, target):
    server.content = b""
    with pytest.raises(CheckpointError, match="not the file that was published"):
        get(server, target)


def test_a_length_that_is_too_short_is_found_out(server, target):
    server.claimed_length = 299_999
    with pytest.raises(CheckpointError, match="not the file that was published"):
        get(server, target)
    assert left(target) == []


def test_a_length_that_is_too_long_is_found_out(server, target):
    server.claimed_length = 400_000
    server.takes_ranges = False
    with pytest.raises(CheckpointError, match="broke off at 300000 of 400000"):
        get(server, target)
    server.takes_ranges = True
    get(server, target)  # the server says 416 to the rest, and the hash is right
    assert target.read_bytes() == CONTENT


def test_no_length_leaves_it_to_the_hash(server, target):
    server.states_length = False
    get(server, target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    server.break_off_after = [120_000]
    with pytest.raises(CheckpointError, match="not the file that was published"):
        get(server, target)


def test_a_file_without_end_is_cut_off(server, target, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setattr(module, "LIMIT", 100_000)
    with pytest.raises(CheckpointError, match="no weights here are"):
        get(server, target)
    assert left(target) == []


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_a_refusal_is_final(server, target, status):
    server.statuses = [status] * 9
    with pytest.raises(CheckpointError, match=f"the server answers {status} .*ASYMSEG_MIRROR"):
        get(server, target)
    assert len(server.requests) == 1
    assert left(target) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_fault_is_waited_for(server, target, status):
    server.statuses = [status] * 2
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_lasting_fault_is_not(server, target):
    server.statuses = [503] * 9
    with pytest.raises(CheckpointError, match="the server answers 503"):
        get(server, target)
    assert len(server.requests) == module.PATIENCE


def test_nobody_there(target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(CheckpointError, match="the server could not be reached: .*refused"):
            download(address, target)


def test_a_server_that_stays_silent(target, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(CheckpointError, match="timed out"):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", target)


def test_a_redirection_is_followed(server, target):
    server.redirect = f"{server.address}/moved/weights.pth"
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_redirection_to_a_file_here_is_not(server, target, tmp_path):
    (tmp_path / "secret").write_text("mine")
    server.redirect = (tmp_path / "secret").as_uri()
    with pytest.raises(CheckpointError, match="the server answers 302"):
        get(server, target, "")


def test_the_mirror_stands_in_for_the_server(server, target, monkeypatch):
    monkeypatch.setenv("ASYMSEG_MIRROR", f"{server.address}/weights/")
    download("https://nowhere.invalid/ann/a.pth", target, SHA)
    assert server.requests == [("/weights/ann/a.pth", "")]


@pytest.mark.parametrize("mirror", ["mirror.example", "ftp://mirror.example", "https://", "/srv/weights"])
def test_a_mirror_that_is_no_address(target, monkeypatch, mirror):
    monkeypatch.setenv("ASYMSEG_MIRROR", mirror)
    with pytest.raises(ConfigError, match=r"ASYMSEG_MIRROR = .* is no address; it takes one such as https://"):
        mirrored("https://nowhere.invalid/a.pth")


def test_the_proxy_of_the_environment_is_asked(server, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    download("http://nowhere.invalid/a.pth", target, SHA)
    assert server.requests == [("http://nowhere.invalid/a.pth", "")]


def test_a_disk_that_takes_nothing(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written .*ASYMSEG_HOME"):
        get(server, tmp_path / "file" / "weights.pth")


def test_the_hash_is_that_of_sha256sum(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
