"""README begins with three commands and leads on to the site; that all of it runs is in test_docs."""

import re
from pathlib import Path

import pytest

from asymseg.cli import app, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}


def test_it_begins_with_three_commands() -> None:
    first = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)[0]
    assert [line.split()[:2] for line in first.splitlines()] == [
        ["asymseg", "sample"],
        ["asymseg", "train"],
        ["asymseg", "predict"],
    ]


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    assert len(links) > 10
    assert not [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]


def test_every_page_of_the_site_can_be_reached() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.name != "README.md"}
    assert not [page for page in pages if page not in text]


def test_every_flag_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for command in [name for name in app if not name.startswith("-")]:
        main([command, "--help"])
    for subject in ("blocks", "head", "network", "loader"):
        main(["benchmark", subject, "--help"])
    help_text = capsys.readouterr().out
    for page, text in PAGES.items():
        text = re.sub(
            r"^(?:python|curl|torchrun|accelerate|srun|#SBATCH) (?:.*\\\n)*.*$|--8<--", "", text, flags=re.MULTILINE
        )
        for flag in set(re.findall(r"(?<![\w`-])`?(--[a-z][\w.-]+)", text)) - OF_OTHERS:
            assert flag.rstrip(".") in help_text, f"{page.name} names {flag}"


OF_LAUNCHERS = {"--cpu", "--multi_gpu", "--nnodes", "--nproc-per-node", "--num_processes", "--use_fsdp"}
OF_OTHERS = {"--help", "--shm-size", "--checkpoint", *OF_LAUNCHERS}
"""Flags of docker, of an example and of launchers."""
