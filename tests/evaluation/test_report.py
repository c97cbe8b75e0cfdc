"""The report page: self-contained, escaped, deterministic, and saying what the scores say."""

import base64
import io
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.evaluation.metrics import Absent, scores
from asymseg.evaluation.report import Example, Report, render, write_report

CLASSES = Classes(
    ("sky", "<b>road</b>", "car & van", "snow"), ((70, 130, 180), (128, 64, 128), (0, 0, 142), (250, 250, 250))
)
MATRIX = torch.tensor([[900, 100, 0, 0], [0, 1500, 500, 0], [30, 0, 70, 0], [0, 0, 0, 0]])
HISTORY: list[dict[str, Any]] = [
    {"kind": "start", "seed": 0},
    *(
        {"kind": "train", "step": step, "loss": 3 / step, "learning_rate": 0.01 - step / 1e5}
        for step in range(50, 400, 50)
    ),
    {"kind": "train", "step": 400, "loss": math.nan, "learning_rate": None},
    {"kind": "validation", "step": 200, "miou": 0.625, "loss": 0.5},
    {"kind": "validation", "step": 400, "miou": 0.5, "loss": 0.25},
]


class Page(HTMLParser):
    """What a reader of the page gets: tags, addresses, the values of <data>, visible text."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.values: list[float] = []
        self.titles: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
                self.addresses.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "title":
                self.titles.append(value or "")
            elif name == "value" and tag == "data":
                self.values.append(float(value or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def pictures(self) -> list[Image.Image]:
        head = "data:image/png;base64,"
        found = [address for address in self.addresses if address.startswith(head)]
        return [Image.open(io.BytesIO(base64.b64decode(address.removeprefix(head)))) for address in found]


def example(name: str = "val/one", height: int = 20, width: int = 30) -> Example:
    """Left half sky, right half road, one ignored row at the top; the last row is called a car."""
    truth = np.zeros((height, width), dtype=np.uint8)
    truth[:, width // 2 :] = 1
    prediction = truth.copy()
    prediction[-1] = 2
    truth[0] = IGNORE
    return Example(name, 0.5, np.full((height, width, 3), 200, dtype=np.uint8), truth, prediction)


def report(absent: Absent = "nan") -> Report:
    facts = ["Model: ANNNet <script>", "no colon here"]
    examples = {"worst": [example("w & w")], "best": [example("best")]}
    return Report("Title <1>", facts, CLASSES, MATRIX, scores(MATRIX, absent), HISTORY, **examples, notes=["2 < 3"])


def made_of(count: int) -> Report:
    matrix = torch.eye(count, dtype=torch.int64) * 100
    return Report("t", [], Classes(tuple(f"class {number}" for number in range(count))), matrix, scores(matrix))


def test_needs_nothing_but_itself() -> None:
    text = render(report())
    page = Page(text)
    assert page.open == []
    assert page.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert "@import" not in text
    assert "http-equiv" not in text
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))
    # names of XML vocabularies are the only addresses, and nothing fetches them
    assert set(re.findall(r"https?://[^\"' )]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_texts_are_escaped() -> None:
    text = render(report())
    page = Page(text)
    for words in (*CLASSES.names, "Title <1>", "ANNNet <script>", "no colon here", "w & w", "2 < 3"):
        assert words in page.text
    assert "<b>road" not in text
    assert "&lt;b&gt;road&lt;/b&gt; called car &amp; van" in text


def test_numbers_are_those_of_the_scores() -> None:
    made = report()
    result, page = made.scores, Page(render(made))
    means = [result.pixel_accuracy, result.mean_accuracy, result.mean_f1, result.micro_iou, result.fwiou]
    order = [0, 1, 2, 3]  # IoU 900/1030, 1500/2100, 70/600, absent
    table = [
        value
        for number in order
        for value in (result.iou[number], result.accuracy[number], result.precision[number], result.f1[number])
    ]
    # headline, the one weakest of three classes, means, classes, two examples
    expected = [result.miou, result.iou[2], *means, *table, 0.5, 0.5]
    np.testing.assert_array_equal(page.values, expected)
    assert f"{100 * result.miou:.1f}%" in re.sub(r"\s", "", page.text)
    assert "mean IoU over 3 of 4 classes" in page.text
    assert page.text.count("absent") == 4
    assert "3\N{NARROW NO-BREAK SPACE}100" in page.text


def test_mistakes_in_words_and_in_the_table() -> None:
    page = Page(render(report()))
    text = re.sub(r"\s+", " ", page.text)
    assert "Weakest: car & van (11.7 %)." in text
    assert "Most often mistaken: 30 % of car & van is called sky." in text
    order = [text.index(f"{words}") for words in ("30 % of car", "25 % of <b>road", "10 % of sky")]
    assert order == sorted(order)
    assert "<b>road</b> called car & van: 500 pixels" in page.titles
    assert sum(" called " in title for title in page.titles) == 16


def test_curves() -> None:
    made = report()
    text = render(made)
    assert text.count("<svg") == 3
    assert "best 62.5 at step 200" in text
    assert "last 0.00857; validation, heavier line, 0.25" in text  # nan at step 400 is left out
    assert "#010101" not in text
    assert "Training loss" not in render(replace(made, history=HISTORY[:2]))


def test_pictures_show_classes_ignored_pixels_and_mistakes() -> None:
    image, truth, prediction, mistakes = (picture.convert("RGBA") for picture in Page(render(report())).pictures()[:4])
    assert image.getpixel((3, 3)) == (200, 200, 200, 255)
    assert truth.getpixel((3, 3)) == (*CLASSES.palette[0], 255)
    assert truth.getpixel((25, 3)) == (*CLASSES.palette[1], 255)
    assert truth.getchannel("A").getpixel((3, 0)) == 0
    assert prediction.getpixel((3, 19)) == (*CLASSES.palette[2], 255)
    assert mistakes.getpixel((3, 19)) == (214, 69, 32, 255)
    assert mistakes.getpixel((3, 3)) == (212, 212, 212, 255)
    assert mistakes.getchannel("A").getpixel((3, 0)) == 0


def test_pictures_are_made_smaller() -> None:
    page = Page(render(replace(report(), worst=[example(height=100, width=1000)], best=[])))
    assert [picture.size for picture in page.pictures()] == [(480, 48)] * 4


def test_same_report_same_bytes(tmp_path: Path) -> None:
    first = write_report(tmp_path / "a.html", report()).read_bytes()
    assert write_report(tmp_path / "b.html", report()).read_bytes() == first
    assert write_report(tmp_path / "c.html", replace(report(), matrix=MATRIX.numpy())).read_bytes() == first


def test_folder_and_missing_folder(tmp_path: Path) -> None:
    assert write_report(tmp_path, made_of(2)) == tmp_path / "report.html"
    assert write_report(tmp_path / "new" / "page.html", made_of(2)).is_file()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "page.html", "report.html"]


@pytest.mark.parametrize("count", [1, 2, 30, 31, 150])
def test_any_number_of_classes_without_history_or_examples(count: int) -> None:
    text = render(made_of(count))
    page = Page(text)
    assert page.open == []
    for number in range(count):
        assert f"class {number}\n" in page.text or f"class {number}<" in text
    assert "No class takes one per cent or more" in page.text
    assert "Training" not in page.text
    assert "Examples" not in page.text
    assert ("<svg" in text) == (count > 30)
    assert ("Only class 0 could be judged" in page.text) == (count == 1)


def test_nothing_labelled() -> None:
    empty = torch.zeros(2, 2, dtype=torch.int64)
    page = Page(render(Report("t", [], Classes(("a", "b")), empty, scores(empty))))
    assert "nothing to judge" in page.text
    assert all(math.isnan(value) for value in page.values)
    assert "nan" not in page.text


@pytest.mark.parametrize(("absent", "words"), [("zero", "counts as zero"), ("one", "counts as one")])
def test_convention_is_named(absent: Absent, words: str) -> None:
    text = Page(render(report(absent))).text
    assert words in text
    assert "mean IoU over 4 classes" in text
    assert "Weakest: snow" not in text


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 classes, a matrix"):
        replace(report(), classes=Classes(("a", "b")))
    with pytest.raises((ValueError, TypeError)):  # jaxtyping speaks first where its checks are on
        replace(example(), prediction=np.zeros((3, 3), dtype=np.uint8))


def test_failure_leaves_the_old_page_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def refuse(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, made_of(2))
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("page.html", "old")]
