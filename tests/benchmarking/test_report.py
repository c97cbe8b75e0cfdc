"""What is printed and written: every figure, every sample, files that are whole."""

import io
import json
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from asymseg.benchmarking.drawing import draw
from asymseg.benchmarking.figures import Comparison, Figures
from asymseg.benchmarking.report import show, write_comparisons
from asymseg.benchmarking.tables import comparison_tables, megabytes, milliseconds, times

FACTS = {"command": "asymseg benchmark blocks", "device": "a made-up CPU, 2 cores"}


def figures(name, size, second, peak, **more):
    return Figures(name, size, (second, second, second), peak, 0, 1_500_000, 2_000_000_000, **more)


SIZES = ((8, 8), (8, 16), (16, 16))
OVER_SIZES = Comparison(
    "APNB 4 -> 4",
    "APNB",
    1,
    "fp32",
    tuple(
        one
        for height, width in SIZES
        for one in (
            figures("plain APNB", (height, width), 0.005 * height * width, 4_000 * height * width),
            figures(
                "APNB", (height, width), 0.002 * height * width, 1_000 * height * width, like="plain APNB", error=4e-7
            ),
        )
    ),
)
ONE_SIZE = Comparison(
    "ANNNet",
    "folded",
    8,
    "bf16",
    (figures("plain", (64, 96), 4.0, 3_000_000), figures("folded", (64, 96), 2.0, None, note="compiled in 9 s")),
    counts_images=True,
)


def test_a_table_for_each_size_and_one_of_growth():
    *tables, growth = comparison_tables(OVER_SIZES)
    assert [table.title for table in tables] == [f"APNB 4 -> 4, 1 x {h}x{w}, fp32" for h, w in SIZES]
    assert tables[0].columns == (
        *("form", "time", "time / ours", "memory", "memory / ours", "parameters", "multiply-adds", "difference"),
    )
    assert tables[0].rows == (
        ("plain APNB", "320 ms ±0%", "2.5", "0.256 MB", "4", "1.5 M", "2 G", ""),
        ("**APNB**", "128 ms ±0%", "1", "0.064 MB", "1", "1.5 M", "2 G", "4e-07"),
    )
    assert growth.rows == (("plain APNB", "1.00", "1.00", "x 4.00"), ("**APNB**", "1.00", "1.00", "x 4.00"))
    assert growth.columns[-1] == "time, 8x8 to 16x16"


def test_images_per_second_and_what_is_not_known():
    (table,) = comparison_tables(ONE_SIZE)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["images/s"] for row in rows] == ["2", "4"]
    assert [row["memory"] for row in rows] == ["3 MB", ""]
    assert [row["note"] for row in rows] == ["", "compiled in 9 s"]
    assert "memory / ours" not in table.columns


def test_markdown():
    lines = comparison_tables(ONE_SIZE)[0].to_markdown().splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[1].startswith("| --- | ---: |")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (milliseconds(0.0000456), "0.0456 ms"),
        (milliseconds(0.0456), "45.6 ms"),
        (milliseconds(0.4567), "457 ms"),
        (milliseconds(1.234), "1.23 s"),
        (megabytes(8_425_000_000), "8425 MB"),
        (megabytes(None), ""),
        (times(2.345), "2.35"),
        (times(236.4), "236"),
        (times(None), ""),
    ],
)
def test_numbers_have_three_digits_or_more(text, expected):
    assert text == expected


def test_the_terminal_shows_whole_lines_however_narrow_it_is():
    shown = io.StringIO()
    show(comparison_tables(OVER_SIZES), Console(file=shown, width=40, soft_wrap=True))
    lines = shown.getvalue().splitlines()
    assert sum(line.startswith("APNB ") and "4e-07" in line for line in lines) == 3
    assert "…" not in shown.getvalue()
    assert "**" not in shown.getvalue()


def test_files_hold_every_sample_and_table(tmp_path):
    write_comparisons(tmp_path / "new", [OVER_SIZES, ONE_SIZE], FACTS)
    pictures = ["annnet-batch-8-bf16.png", "apnb-4-4-batch-1-fp32.png"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [*pictures, "results.json", "results.md"]

    content = json.loads((tmp_path / "new" / "results.json").read_text())
    assert content["command"] == FACTS["command"]
    first, second = content["comparisons"]
    assert [one["seconds"] for one in first["figures"]] == [list(one.seconds) for one in OVER_SIZES.figures]
    assert [line["name"] for line in first["growth"]] == ["plain APNB", "APNB"]
    assert second["growth"] == []

    text = (tmp_path / "new" / "results.md").read_text()
    for comparison in (OVER_SIZES, ONE_SIZE):
        for table in comparison_tables(comparison):
            assert table.title in text
            assert table.to_markdown() in text
    assert f"`{FACTS['command']}`" in text
    for picture in pictures:
        assert f"({picture})" in text
        with Image.open(tmp_path / "new" / picture) as image:
            assert image.width > 1200
            assert image.getpixel((0, 0))[:3] == (255, 255, 255)


@pytest.mark.parametrize("comparison", [OVER_SIZES, ONE_SIZE], ids=["lines", "bars"])
def test_the_pictures_show_their_numbers(comparison, tmp_path):
    changed = (replace(comparison.figures[0], seconds=(9.0,) * 3), *comparison.figures[1:])
    draw(comparison, tmp_path / "before.png")
    draw(replace(comparison, figures=changed), tmp_path / "after.png")
    assert (tmp_path / "before.png").read_bytes() != (tmp_path / "after.png").read_bytes()
