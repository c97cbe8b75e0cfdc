"""What is finished is known to the next run, wherever the results lie; what is made otherwise is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from asymseg.errors import ConfigError, DataError
from asymseg.prediction.many.manifest import Done, begin, record, refuse_kept
from asymseg.prediction.many.stores import Store

MADE = {"model.safetensors": "12ab", "scales": (1.0, 1.5), "overlay": True}


@pytest.fixture(params=["disk", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield Store(str(tmp_path) if request.param == "disk" else "memory://manifest/out")
    fsspec.filesystem("memory").store.clear()


def test_nothing_is_finished_at_first(out: Store):
    refuse_kept(out)
    assert begin(out, MADE) == []
    with pytest.raises(ConfigError, match="holds results with a manifest; go on with --resume, or choose another -o"):
        refuse_kept(out)


def test_what_was_recorded_is_known_to_the_next_run(out: Store):
    begin(out, MADE)
    finished = [Done("a.png"), Done("trip/ä b.jpg", "damaged:\tcopy it"), Done("c\n.png"), Done("stra\udcdfe.png")]
    record(out, finished[:2])
    record(out, finished[2:])
    record(out, [])
    assert sorted(begin(out, MADE), key=str) == sorted(finished, key=str)
    assert len(out.names(".predictions/done")) == 2


def test_to_record_twice_is_as_good_as_once(out: Store):
    begin(out, MADE)
    record(out, [Done("a.png"), Done("b.png")])
    record(out, [Done("a.png"), Done("b.png")])
    assert begin(out, MADE) == [Done("a.png"), Done("b.png")]


def test_other_settings_are_refused_by_their_names(out: Store):
    begin(out, MADE)
    with pytest.raises(ConfigError) as caught:
        begin(out, {**MADE, "scales": (1.0,), "overlay": False, "fold": True})
    words = "fold was null and is true, overlay was true and is false, scales was [1.0, 1.5] and is [1.0]"
    assert words in str(caught.value)
    with pytest.raises(ConfigError, match='model.safetensors was "12ab" and is "0123456789ab...";'.replace(".", r"\.")):
        begin(out, {**MADE, "model.safetensors": "0123456789abcdef" * 4})
    assert "\n" not in str(caught.value)
    assert begin(out, MADE) == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": "other", "made_with": {}}', b'{"format": 1}', b"\xff", b"[" * 100_000]
)
def test_a_file_that_is_no_manifest(out: Store, content: bytes):
    out.write(".predictions/run.json", content)
    with pytest.raises(DataError, match="run.json: not the manifest of a prediction; remove it"):
        begin(out, MADE)


@pytest.mark.usefixtures("no_shape_checks")  # they would see a list in place of a name
@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b'{"picture": "a"}\n', b"[1]\n", b"\xff\n", b"[" * 100_000),
        *(b'{"image": 3}\n', b'{"image": ["a"]}\n', b'{"image": "a", "failed": {}}\n'),
    ],
)
def test_a_damaged_part_is_named(out: Store, content: bytes):
    begin(out, MADE)
    out.write(".predictions/done/00.jsonl", content)
    with pytest.raises(DataError, match=r"done/00.jsonl: damaged; remove it, and its images are predicted again"):
        begin(out, MADE)


def test_it_is_plain_to_read(out: Store):
    begin(out, MADE)
    record(out, [Done("a.png"), Done("b.png", "cut short")])
    run = json.loads(out.content(".predictions/run.json"))
    assert run["made_with"] == json.loads(json.dumps(MADE))
    (part,) = out.names(".predictions/done")
    assert out.content(part) == b'{"image": "a.png"}\n{"image": "b.png", "failed": "cut short"}\n'
