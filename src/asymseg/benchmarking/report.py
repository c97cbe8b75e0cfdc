"""What a benchmark leaves behind: tables on the terminal; results.json, results.md and pictures in a folder."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from asymseg.atomic import atomic_file
from asymseg.benchmarking.drawing import draw
from asymseg.benchmarking.figures import Comparison, growth
from asymseg.benchmarking.tables import TextTable, comparison_tables

READING = """\
- time: the median of all rounds, in which the forms took turns, ± half of the middle half; time / ours: the median of
  the ratios within a round.
- memory: the most that is held at one time beyond inputs and outputs; kept: what the first call leaves behind, such as
  transformed weights; saved: what autograd keeps for the backward pass, parameters left out. MB are 10^6 bytes.
- multiply-adds: of convolutions, matrix products and attention, as they are carried out.
- roofline: the share of the time that this machine's own rates of copying and of matrix products explain.
- difference: the largest from the plain form, relative to the largest entry.
"""

WIDE = 300
"""More than any table takes: its lines stay whole, however narrow the terminal."""


def say_facts(facts: Mapping[str, str], console: Console) -> None:
    """Print what a reader must know, a line each."""
    for name, fact in facts.items():
        console.print(f"{name}: {fact}", highlight=False, markup=False)


def show(tables: Sequence[TextTable], console: Console) -> None:
    """Print the tables; our own row is bold."""
    for table in tables:
        drawn = Table(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left", header_style="dim", no_wrap=True)
        for row in table.rows:
            ours = row[0].startswith("**")
            drawn.add_row(*(cell.strip("*") for cell in row), style="bold" if ours else None)
        drawn.width = console.measure(drawn, options=console.options.update_width(WIDE)).maximum
        console.print(drawn, crop=False, overflow="ignore", no_wrap=True)
        console.print()


def write_comparisons(folder: Path, comparisons: Sequence[Comparison], facts: Mapping[str, str]) -> None:
    """Write results.json with every sample, results.md, and a PNG for each comparison."""
    pictures = [f"{_slug(one)}.png" for one in comparisons]
    for comparison, picture in zip(comparisons, pictures, strict=True):
        draw(comparison, folder / picture)
    content = {
        **facts,
        "comparisons": [{**asdict(one), "growth": [asdict(line) for line in growth(one)]} for one in comparisons],
    }
    parts = []
    for comparison, picture in zip(comparisons, pictures, strict=True):
        parts.append(f"![{comparison.title}]({picture})")
        parts += [f"### {table.title}\n\n{table.to_markdown()}" for table in comparison_tables(comparison)]
    write_results(folder, content, [*parts, READING.rstrip()], facts)


def write_results(folder: Path, content: Mapping[str, object], parts: Sequence[str], facts: Mapping[str, str]) -> None:
    """Write results.json, and results.md of the facts and these parts."""
    with atomic_file(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    head = "\n".join(f"- {name}: {f'`{fact}`' if name == 'command' else fact}" for name, fact in facts.items())
    with atomic_file(folder / "results.md") as temporary:
        temporary.write_text("\n\n".join(["# Results", head, *parts]) + "\n", encoding="utf-8")


def _slug(comparison: Comparison) -> str:
    text = f"{comparison.title} batch {comparison.batch} {comparison.precision}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
