"""What stands in two places says the same in both."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def normal(name: str) -> str:
    """A package's name as installers compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


PROJECT = tomllib.loads(read("pyproject.toml"))


def test_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert re.findall(r"^## \[([^\]]+)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == version
    assert re.findall(r"^version: (.+)$", read("CITATION.cff"), re.MULTILINE) == [version]


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9a-z.]*)", line) for line in lines]
    # A local suffix such as +cpu fits one machine alone.
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    assert len({normal(match[1]) for match in found}) == len(lines)
    return {normal(match[1]): match[2] for match in found}


def test_all_that_setup_installs_is_pinned():
    groups = PROJECT["dependency-groups"]
    wanted = [*PROJECT["project"]["dependencies"], *groups["test"], *groups["lint"]]
    names = {normal(re.match(r"[A-Za-z0-9._-]+", requirement)[0]) for requirement in wanted}
    assert names <= pins().keys()


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def test_pins_respect_the_lower_bounds():
    pinned = pins()
    for requirement in PROJECT["project"]["dependencies"]:
        name, low = requirement.split(">=")
        assert numbers(pinned[normal(name)]) >= numbers(low), requirement


def test_ci_runs_what_the_readme_tells_a_reader_to_type():
    runs = set(re.findall(r"^make (\w+)$", read(".ci/run"), re.MULTILINE))
    told = set(re.findall(r"\bmake (demo|test|lint|setup)\b", read("README.md")))
    assert {"demo", "test"} <= told <= runs


def test_every_target_of_ci_exists():
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)$", read(".ci/run"), re.MULTILINE)) <= targets
    assert next(iter(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))) == "help"
