"""What README tells a reader to type works as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

from asymseg.cli import main

README = Path(__file__).parents[1] / "README.md"
FEWER = {  # flags that make a command of the README quick, and nothing else
    "sample": ["--train", "8", "--val", "4", "--test", "2"],
    "train": ["--train.steps", "2", "--train.batch_size", "4", "--data.workers", "0"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_commands_and_python_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks("sh")
    lines = [shlex.split(line) for line in commands.splitlines()]
    assert [line[:2] for line in lines] == [["asymseg", "sample"], ["asymseg", "train"], ["asymseg", "predict"]]
    for line in lines:
        main(line[1:] + FEWER.get(line[1], []))
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 2

    snippets = blocks("python")
    assert len(snippets) == 5
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "overlay.png").is_file()


def test_the_class_list_is_one_that_is_accepted(tmp_path: Path) -> None:
    from asymseg.classes import Classes

    (example,) = blocks("json")
    path = tmp_path / "classes.json"
    path.write_text(example)
    classes = Classes.from_file(path)
    assert classes.names == ("sky", "road")
    assert classes.values == {7: 1, 23: 0}


def test_every_flag_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text(encoding="utf-8")
    capsys.readouterr()
    for command in ("sample", "check", "train", "evaluate", "compare", "predict", "export", "import", "models"):
        main([command, "--help"])
    help_text = capsys.readouterr().out
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w.-]+", text)) - {"--help"}
    assert flags
    for flag in flags:
        assert flag.rstrip(".") in help_text, f"README names {flag}"
