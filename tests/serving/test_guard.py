"""Who may ask, from where, and what every answer carries."""

import asyncio

import pytest

from asymseg.errors import ConfigError
from asymseg.serving import guard
from asymseg.serving.guard import HEADERS, Guard, read_keys
from asymseg.serving.refusals import Refusal

KEY = "0123456789abcdefghij"


@pytest.fixture(scope="module")
def keyed(starting):
    with starting(keys=(KEY, "another key of twenty"), names=("seg.example.org",)) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5:8000", "LOCALHOST", "seg.example.org"]
)
def test_its_own_names_and_numbers_are_answered(keyed, host):
    assert keyed.get("/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example.org", "evil.example.org:8000", "localhost.evil.org", "", "127.0.0.1.evil.org"]
)
def test_a_name_that_was_made_to_point_here_is_not(client, host):
    answer = client.get("/v1/models", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example.org"},
        {"origin": "http://127.0.0.1:3000"},  # another server of this machine
        {"origin": "null"},
    ],
)
def test_pages_of_other_sites_are_refused(client, headers):
    for answer in (
        client.post("/v1/predict", content=b"x", headers=headers),
        client.get("/v1/models", headers=headers),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers", [{}, {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"}, {"sec-fetch-site": "none"}]
)
def test_its_own_page_and_programs_are_answered(client, headers):
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_link_from_elsewhere_leads_to_the_page_and_no_further(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/v1/models", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": "another key of twenty"}, 200),
        ({}, 401),
        ({"x-api-key": KEY[:-1]}, 401),
        ({"x-api-key": ""}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": KEY}, 401),
        ({"x-api-key": "clé"}, 401),
    ],
)
def test_keys(keyed, headers, status):
    headers = {name: value.encode() for name, value in headers.items()}
    for address in (
        "/v1/models",
        "/v1/models/street",
        "/examples",
        "/examples/scene-1.png",
        "/metrics",
        "/openapi.json",
    ):
        answer = keyed.get(address, headers=headers)
        assert answer.status_code == status, address
    if status == 401:
        assert answer.json()["error"]["code"] == "no_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_page_and_the_health_need_no_key(keyed):
    for address in ("/", "/page/page.js", "/livez", "/readyz"):
        assert keyed.get(address).status_code == 200, address
    assert keyed.get("/page/nothing").status_code == 404


@pytest.mark.parametrize("address", ["/page/../v1/models", "/page/..%2fv1/models", "//v1/models", "/v1/models/"])
def test_no_way_round_the_keys(keyed, address):
    assert "street" not in keyed.get(address).text


@pytest.mark.parametrize("address", ["/livez", "/v1/models", "/nothing", "/v1/predict", "/openapi.json", "/metrics"])
def test_every_answer_has_the_headers(client, address):
    answer = client.get(address)
    assert HEADERS.items() <= dict(answer.headers).items()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' blob: data:;")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_methods_that_clients_make_up_are_counted_as_one(client):
    for method in ("MADE", "UP", "HEAD"):
        assert client.request(method, "/livez").status_code == 405
    numbers = client.get("/metrics").text
    assert 'method="other",route="/livez"' in numbers or 'method="other",route="other"' in numbers
    assert 'method="HEAD"' in numbers
    assert "MADE" not in numbers


def test_keys_of_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# mine\n{KEY}\n\n  {KEY[::-1]}  \n")
    assert read_keys(path) == (KEY, KEY[::-1])


@pytest.mark.parametrize(
    ("content", "told"),
    [("# none\n", "holds no key"), ("short\n", "line 1"), (f"{KEY}\nwith a blank in it 123\n", "line 2")],
)
def test_a_file_without_good_keys_is_refused(tmp_path, content, told):
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_keys(path)


def test_a_file_of_keys_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="not readable"):
        read_keys(tmp_path / "keys")


def refused_while_it_ends(parts: list[dict], receive_more) -> list[dict]:
    """The answer of a server that ends, and refuses before it has read the body, which comes in these parts."""
    sent: list[dict] = []

    async def refuses(scope, receive, send):
        sent.append({"left": len(parts)})
        await guard._answer(Refusal(503, "stopping", "later"), send)

    async def receive():
        return parts.pop(0) if parts else await receive_more()

    async def send(message):
        sent.append({**message, "left": len(parts)})

    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(refuses, stopping=lambda: True)(scope, receive, send))
    return sent


async def nothing_more():
    raise AssertionError("read past the end of the body")


def test_a_server_that_ends_hears_the_body_before_it_answers():
    """What is unread when a connection closes makes the system reset it, and the client loses the answer."""
    body = [{"type": "http.request", "body": b"x", "more_body": more} for more in (True, True, False)]
    begun, start, _ = refused_while_it_ends(body, nothing_more)
    assert (begun["left"], start["left"], start["status"]) == (3, 0, 503)
    assert (b"connection", b"close") in start["headers"]


def test_a_client_that_leaves_meanwhile_is_waited_for_no_longer():
    parts = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    assert refused_while_it_ends(parts, nothing_more)[1]["status"] == 503


def test_a_body_that_never_ends_is_heard_for_a_moment(monkeypatch):
    monkeypatch.setattr(guard, "_HEARD_OUT", 0.01)
    parts = [{"type": "http.request", "body": b"x", "more_body": True}]
    assert refused_while_it_ends(parts, lambda: asyncio.sleep(3600))[1]["status"] == 503
