"""Class lists: what is read, what is refused, and how raw ids become classes."""

import json

import numpy as np
import pytest

from asymseg.classes import IGNORE, KEYS, Classes, default_palette, unread_keys
from asymseg.errors import DataError


def read(tmp_path, content) -> Classes:
    path = tmp_path / "classes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Classes.from_file(path)


def test_the_smallest_list(tmp_path):
    classes = read(tmp_path, {"classes": ["sky", "road"]})
    assert classes == Classes(("sky", "road"))
    assert (len(classes), classes.ignore, classes.values) == (2, 255, None)
    assert classes.palette == default_palette(2)
    assert not classes.declared_palette


def test_everything_given(tmp_path):
    content = {
        "classes": ["sky", "road"],
        "palette": [[1, 2, 3], [4, 5, 6]],
        "ignore": 0,
        "ignore_color": [9, 9, 9],
        "values": {"7": "road", "8": 0, "9": None, "1000": 255},
    }
    classes = read(tmp_path, content)
    assert classes.palette == ((1, 2, 3), (4, 5, 6))
    assert classes.declared_palette
    assert classes.ignore_colour == (9, 9, 9)
    assert classes.values == {7: 1, 8: 0, 9: IGNORE, 1000: IGNORE}
    assert Classes.from_dict(classes.to_dict(), "here") == classes
    assert Classes.from_dict(json.loads(json.dumps(classes.to_dict())), "here") == classes


def test_a_made_up_palette_is_not_written(tmp_path):
    classes = Classes(("sky", "road"))
    assert classes.to_dict() == {"classes": ["sky", "road"], "ignore": 255}
    assert not Classes.from_dict(classes.to_dict(), "here").declared_palette


def test_default_colours_differ_and_are_vocs():
    assert default_palette(3) == ((128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert len(set(default_palette(255))) == 255
    assert (0, 0, 0) not in default_palette(255)


def test_lookup_without_values():
    table = Classes(("sky", "road"), ignore=7).lookup(256)
    assert table.dtype == np.int16
    assert table[:9].tolist() == [0, 1, -1, -1, -1, -1, -1, IGNORE, -1]
    assert table[255] == -1


def test_lookup_with_values():
    """An undeclared id stays undeclared, and what is declared beats the ignored id."""
    table = Classes(("sky", "road"), values={7: 1, 8: 0, 9: IGNORE, 300: 0}, ignore=0).lookup(256)
    assert {raw: int(number) for raw, number in enumerate(table) if number != -1} == {0: IGNORE, 7: 1, 8: 0, 9: IGNORE}
    assert Classes(("sky", "road"), values={300: 0}).lookup(301)[300] == 0
    assert Classes(("background", "foreground"), values={0: 0, 255: 1}).lookup(256)[255] == 1


def test_ids_0_and_255_of_a_plain_list():
    table = Classes(("only",)).lookup(256)
    assert table[0] == 0
    assert table[255] == IGNORE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ([], 'expected an object with a list "classes"'),
        ({"classes": "sky"}, 'expected an object with a list "classes"'),
        ({"names": ["sky"]}, 'expected an object with a list "classes"'),
        ({"classes": []}, "1 to 255 classes; this one lists 0"),
        ({"classes": [str(number) for number in range(256)]}, "1 to 255 classes; this one lists 256"),
        ({"classes": ["sky", ""]}, "non-empty text"),
        ({"classes": ["sky", 3]}, "non-empty text"),
        ({"classes": ["sky\nroad"]}, "non-empty text of one line"),
        ('{"classes": ["\\ud800"]}', "non-empty text of one line"),
        ("[" * 200_000, "not readable as JSON"),
        ('{"classes": ["sky"], "ignore": ' + "1" * 5000 + "}", "not readable as JSON"),
        ({"classes": ["sky", "sky"]}, "class names occur more than once: sky"),
        ({"classes": ["sky"], "palette": [[1, 2, 3], [4, 5, 6]]}, "1 classes but 2 palette colours"),
        ({"classes": ["sky"], "palette": [[1, 2]]}, "three numbers from 0 to 255"),
        ({"classes": ["sky"], "palette": [[1, 2, 256]]}, "three numbers from 0 to 255"),
        ({"classes": ["sky"], "palette": ["#ffffff"]}, "three numbers from 0 to 255"),
        ({"classes": ["sky"], "palette": 5}, '"palette" must be a list'),
        ({"classes": ["sky"], "palette": {"sky": [1, 2, 3]}}, '"palette" must be a list'),
        ({"classes": ["sky"], "ignore": -1}, '"ignore" must be a whole number from 0 to 65535, not -1'),
        ({"classes": ["sky"], "ignore": True}, '"ignore" must be a whole number'),
        ({"classes": ["sky"], "ignore_color": 5}, '"ignore_color" must be three numbers'),
        ({"classes": ["sky", "road"], "ignore": 1}, "the ignored id 1 is also the class 'road'"),
        ({"classes": ["sky"], "values": [1]}, '"values" must be an object'),
        ({"classes": ["sky"], "values": {"seven": "sky"}}, "maps 'seven', which is not a raw id"),
        ({"classes": ["sky"], "values": {"70000": "sky"}}, "maps '70000', which is not a raw id"),
        ({"classes": ["sky"], "values": {"-1": "sky"}}, "maps '-1', which is not a raw id"),
        ({"classes": ["sky"], "values": {"7": "road"}}, "maps raw id 7 to 'road', which is not a class"),
        ({"classes": ["sky"], "values": {"7": 1}}, "maps raw id 7 to 1, which is not a class"),
        ({"classes": ["sky"], "values": {"7": True}}, "maps raw id 7 to True, which is not a class"),
        ({"classes": ["sky"], "values": {"1": [1]}}, "maps raw id 1 to [1], which is not a class"),
        ({"classes": ["sky"], "values": {"1": {"sky": 1}}}, "maps raw id 1 to {'sky': 1}, which is not a class"),
        ({"classes": ["sky"], "values": {"\u00b2": 0}}, "maps '\u00b2', which is not a raw id"),
        ({"classes": ["sky"], "values": {"\u0667": 0}}, "maps '\u0667', which is not a raw id"),
        ({"classes": ["sky"], "values": {"0" * 5000: 0}}, "which is not a raw id"),
        ({"classes": ["sky"], "values": {"7": 0, "07": 0}}, "maps raw id 7 more than once"),
    ],
)
def test_faults_are_named_with_their_file(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'classes.json'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ODD = (None, True, False, 0, -1, 3, 70000, 1.5, float("nan"), float("inf"), "", "sky", "7", "\u00b2", "\ud800", "a\nb")
NESTED = tuple(box for odd in ODD for box in ([odd], [odd] * 3, [[odd] * 3], {"7": odd}, {str(odd): 0}, {"7": [odd]}))


@pytest.mark.parametrize(
    "key", ["classes", "palette", "ignore", "ignore_index", "ignore_color", "values", "categories"]
)
def test_whatever_stands_in_the_file_it_is_read_or_refused_in_one_line(tmp_path, key):
    messages = []
    for odd in (*ODD, *NESTED, [], {}, [[]], {"": {}}):
        try:
            classes = read(tmp_path, {"classes": ["sky"], key: odd})
        except DataError as error:
            messages.append(str(error))
            continue
        assert Classes.from_dict(classes.to_dict(), "here") == classes, odd
        assert classes.lookup(256).shape == (256,)
    assert len(messages) > 70
    for message in messages:
        assert message.startswith(f"{tmp_path / 'classes.json'}: ")
        assert len(message.encode().splitlines()) == 1  # encode() refuses what a terminal could not show


def test_keys_that_are_not_known(tmp_path):
    """What is nearly a key is a slip; what is none may be for somebody else, and is named."""
    path = tmp_path / "classes.json"
    for key, meant in (("ignore_colour", "ignore_color"), ("palete", "palette"), ("Classes", "classes")):
        with pytest.raises(DataError, match=f"{path}: no key {key!r} is known; did you mean {meant!r}?"):
            read(tmp_path, {"classes": ["sky"], key: 7})
    with pytest.raises(DataError, match="no key 'clases' is known; did you mean 'classes'"):
        read(tmp_path, {"clases": ["sky"]})
    assert read(tmp_path, {"classes": ["sky"], "_ignore": 7}).ignore == 255
    assert read(tmp_path, {"classes": ["sky"], "splits": {}, "image\nsize": 1, "ignore_index": 7}).ignore == 7
    assert unread_keys(path) == (f"{path}: not read: 'splits', 'image\\nsize'; what is read is {', '.join(KEYS)}",)
    read(tmp_path, {"classes": ["sky"], **dict.fromkeys("abcdefg")})
    assert "'d', 'e' and 2 more; " in unread_keys(path)[0]
    read(tmp_path, {"classes": ["sky"], "values": {}})
    assert unread_keys(path) == ()


def test_categories_are_read_and_written(tmp_path):
    classes = read(tmp_path, {"classes": ["sky", "car", "bus"], "categories": ["sky", "vehicle", "vehicle"]})
    assert classes.categories == ("sky", "vehicle", "vehicle")
    assert Classes.from_dict(classes.to_dict(), "here") == classes
    assert "categories" not in Classes(("sky",)).to_dict()
    with pytest.raises(DataError, match="3 classes but 1 categories; name one for each class"):
        Classes(("sky", "car", "bus"), categories=("sky",))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="classes.json: not readable as JSON"):
        Classes.from_file(tmp_path / "classes.json")


def test_the_same_names_however_they_are_spelt():
    classes = Classes(("traffic light", "bed", "Sky"), values={3: 0, 4: 1, 5: 2})
    assert classes.same_names(Classes(("traffic_light", "bed ", "sky")))
    assert classes.same_names(Classes(("Traffic-Light", "bed", "sky"), ((1, 1, 1), (2, 2, 2), (3, 3, 3))))
    assert not classes.same_names(Classes(("bed", "traffic light", "sky")))
    assert not classes.same_names(Classes(("traffic light", "bed")))
    assert not classes.same_names(Classes(("traffic lights", "bed", "sky")))


def test_a_mark_at_the_beginning_is_no_part_of_the_file(tmp_path):
    (tmp_path / "classes.json").write_text("\ufeff" + json.dumps({"classes": ["a"]}), encoding="utf-8")
    assert Classes.from_file(tmp_path / "classes.json").names == ("a",)
