"""What README and the site tell a reader to type works as it stands there; the site is whole and needs no other place.

Blocks of commands run in the order of their page, in a folder as the five-minute start leaves it. A block whose title
begins with "needs" wants what is not here, a download or a GPU: its commands are parsed, its Python is compiled and the
names of ours in it looked up.
"""

import argparse
import ast
import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import av
import httpx
import numpy as np
import pytest
import rasterio
import yaml
from accelerate.commands.launch import launch_command_parser as accelerate_parser
from jaxtyping import UInt8
from PIL import Image
from selenium import webdriver
from starlette.testclient import TestClient
from torch.distributed.run import get_args_parser as torchrun_parser

import asymseg
from asymseg.classes import Classes
from asymseg.cli import app, main
from asymseg.config import make_config
from asymseg.serving.app import make_app
from asymseg.serving.examples import Examples
from asymseg.serving.guard import Guard
from asymseg.serving.room import Limits
from asymseg.serving.service import Service

ROOT = Path(__file__).parents[1]
START = ROOT / "docs" / "start.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
FEWER = {  # what makes a command quick, and changes nothing else
    "sample": {"--train": "8", "--val": "4", "--test": "2"},
    "train": {"--train.steps": "2", "--train.batch_size": "4", "--data.workers": "0"},
    "evaluate": {"--replicates": "50"},
    "compare": {"--replicates": "50"},
}
SMALL = {"--config": "sample", "--data.crop_size": "32 48"}
"""Where a page trains another network than that of the scenes, and names no backbone."""
UNTRAINED = {"--model.pretrained": "false", "--data.crop_size": "64 96", "--model.context_channels": "32"}
"""Where it names one."""
OUTPUTS = ("text", "json", "yaml")


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    content: str

    @property
    def runs(self) -> bool:
        return not self.title.startswith("needs")


def blocks_of(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        Block(language, title, re.sub(rf"^{indent}", "", text, flags=re.M)) for indent, language, title, text in found
    ]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(block: Block) -> Iterator[list[str]]:
    """What a block of commands tells to type, word by word."""
    if block.language != "sh":
        return
    for line in block.content.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def quicker(words: list[str]) -> list[str]:
    """The arguments of a command of asymseg, with fewer steps, images and draws."""
    flags = FEWER.get(words[0], {})
    if words[0] == "train" and "--config" not in words and "--resume" not in words:
        flags = {**flags, **(UNTRAINED if "--model.backbone" in words else SMALL)}
    if words[0] == "train" and "--print-config" in words:
        flags = {}
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("-"):
            dropping = word in flags
        if not dropping:
            kept.append(word)
    return [*kept, *(part for flag, value in flags.items() for part in (flag, *value.split()))]


def run(words: list[str]) -> None:
    """A command of a page; those that are not ours are checked as far as they can be without the network."""
    match words:
        case ["asymseg", *arguments]:
            leaving = 0
            try:
                main(quicker(arguments))
            except SystemExit as exit:
                leaving = int(exit.code or 0)
            assert leaving == 0 or (arguments[0] == "check" and leaving in (3, 4)), (words, leaving)
        case _:
            parse(words)


def parse(words: list[str]) -> None:
    """Fail where a command could not be typed like that."""
    match words:
        case ["asymseg", *arguments]:
            app.parse_args(arguments, exit_on_error=False, print_error=False)
        case ["accelerate", "launch", *arguments]:
            launched(accelerate_parser().parse_args(arguments))
        case ["torchrun", *arguments]:
            launched(torchrun_parser().parse_args(arguments))
        case ["srun", *program]:
            parse(program)
        case ["pip", "install", *packages]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
                "optional-dependencies"
            ]
            named = {
                extra
                for package in packages
                for extra in re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*)\]", package)))
            }
            assert named <= extras.keys(), words
        case ["make", *targets]:
            assert set(targets) <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), words
        case ["curl", *arguments]:
            (address,) = (urlsplit(word) for word in arguments if word.startswith("http"))
            routes = httpx.get("http://127.0.0.1:8000/openapi.json").json()["paths"]
            (route,) = routes[address.path].values()
            assert dict(parse_qsl(address.query)).keys() <= {each["name"] for each in route.get("parameters", [])}, (
                words
            )
        case _:
            raise AssertionError(f"what is {words[0]}? {words}")


def launched(arguments: argparse.Namespace) -> None:
    """Fail where what a launcher is to start could not be typed like that."""
    assert (arguments.module, arguments.training_script) == (True, "asymseg"), arguments
    parse(["asymseg", *arguments.training_script_args])


def names_of_ours(code: str) -> None:
    """Fail where a block of Python imports or names what asymseg does not have."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "asymseg":
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "asymseg":
            getattr(importlib.import_module("asymseg"), node.attr)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of someone who went through the five-minute start, and what the pages take for granted beside it."""
    folder = tmp_path_factory.mktemp("world")
    here = os.getcwd()
    os.chdir(folder)
    try:
        for block in blocks_of(START):
            for words in commands(block) if block.runs else ():
                run(words)
    finally:
        os.chdir(here)
    shutil.copytree(folder / "scenes", folder / "DATA")
    (folder / "photos").mkdir()
    for number in range(2):
        with Image.open(folder / f"scenes/images/test/{number:04d}.png") as scene:
            scene.save(folder / f"photos/{number}.jpg")
            scene.save(folder / "street.jpg")
    scene = np.asarray(Image.open(folder / "street.jpg"))
    write_raster(folder / "scene.tif", scene)
    write_film(folder / "drive.mp4", scene)
    return folder


def write_raster(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 390_000, 0, -0.5, 5_820_000)}
    height, width, _ = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", **place
    ) as raster:
        raster.write(pixels.transpose(2, 0, 1))


def write_film(path: Path, picture: UInt8[np.ndarray, "h w 3"], frames: int = 3) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def served(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What httpx asks at the usual address is answered in this process, by the model of the scenes."""
    service = Service({"scenes": str(world / "runs/scenes/best")}, "cpu", Limits())
    with TestClient(Guard(make_app(service, Examples(None))), base_url="http://127.0.0.1:8000") as client:
        for method in ("get", "post"):
            monkeypatch.setattr(httpx, method, getattr(client, method))
        yield


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_tells_to_type(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("no_shape_checks")
    monkeypatch.setattr("asymseg.exporting.export.SIZES", ((16, 16), (37, 53)))  # that many are enough for a page
    if page.name == "serving.md":
        request.getfixturevalue("served")
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    names = {"__name__": page.stem}
    done = [words for block in blocks_of(START) if block.runs for words in commands(block)]
    for block in blocks_of(page):
        if block.language == "sh":
            for words in commands(block):
                if not block.runs:
                    parse(words)
                elif words not in done:
                    run(words)
        elif block.language == "python":
            code = compile(block.content, page.name, "exec")
            names_of_ours(block.content)
            if block.runs:
                exec(code, names)
        elif block.language == "json" and block.runs:
            Classes.from_dict(json.loads(block.content), page.name)
        elif block.language == "yaml":
            make_config(yaml.safe_load(block.content))
        else:
            assert block.language in ("sh", *OUTPUTS), f"{page.name}: a block of {block.language}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides_in_an_indented_block(page: Path) -> None:
    fenced = BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert not re.findall(r"^    (?:asymseg|pip|python|torchrun|accelerate) ", fenced, re.MULTILINE)


def test_the_world_is_what_the_start_says(world: Path) -> None:
    assert len(list((world / "predictions").glob("*_overlay.jpg"))) == 2
    assert (world / "runs/scenes/best/evaluation-test/report.html").is_file()
    assert np.asarray(Image.open(world / "predictions/0000.png")).shape == (96, 192)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: with --strict, so that a link or an anchor that leads nowhere is an error."""
    mkdocs = pytest.importorskip("mkdocs.__main__", reason="the site is built by the group docs")
    folder = tmp_path_factory.mktemp("site")
    arguments = ["build", "--strict", "--quiet", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    built = subprocess.run(
        [sys.executable, "-m", mkdocs.__name__.partition(".")[0], *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Resources(HTMLParser):
    """What a page loads by itself when it is opened; links that a reader may follow are none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            self.found.append(values.get("href", ""))
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "object", "use"):
            self.found += [values[name] for name in ("src", "srcset", "data", "href", "xlink:href") if name in values]


def loaded_by(page: Path) -> list[str]:
    reader = Resources()
    text = page.read_text(encoding="utf-8")
    reader.feed(text)
    return [*reader.found, *re.findall(r"url\(([^)]*)\)", text)]


def from_elsewhere(address: str) -> bool:
    return address.strip("'\" ").startswith(("http:", "https:", "//"))


def test_nothing_on_the_site_is_loaded_from_elsewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html")]
    assert len(pages) > 15
    assert sum(len(loaded_by(page)) for page in pages) > 2 * len(pages)
    assert not [(page.name, address) for page in pages for address in loaded_by(page) if from_elsewhere(address)]
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not [url for url in re.findall(r"url\(([^)]*)\)|@import ([^;]*)", text) if any(map(from_elsewhere, url))]


def test_what_a_page_of_elsewhere_would_load_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<script src="//x/a.js"></script><a href="https://x">go</a><i style="background:url(http://x/i)">')
    assert [address for address in loaded_by(page) if from_elsewhere(address)] == ["//x/a.js", "http://x/i"]


def test_equations_are_drawn_and_none_is_left_as_tex(site: Path) -> None:
    text = (site / "paper.html").read_text(encoding="utf-8")
    assert text.count('<svg class="tex"') > 30
    assert 'aria-label="P_s(X) = R_s X C_s^\\top"' in text
    for page in site.rglob("*.html"):
        assert "arithmatex" not in page.read_text(encoding="utf-8"), page


def test_the_site_documents_every_public_name(site: Path) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    errors = {name for name in asymseg.__all__ if name.endswith("Error")}
    for name in set(asymseg.__all__) - errors - {"__version__"}:
        assert f'id="asymseg.{name}"' in text, name


def test_every_message_belongs_to_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    messages = importlib.import_module("messages")
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    missing = messages.raising_files() - messages.listed_files(page)
    assert not missing, f"name them in a family of docs/errors.md: {sorted(map(str, missing))}"
    for kind in messages.ERRORS:
        assert f"`{kind}`" in page or f"asymseg.{kind}`" in page


def test_a_message_is_told_with_what_is_filled_in_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    messages = importlib.import_module("messages")
    source = tmp_path / "code.py"
    source.write_text('raise DataError(f"{path}: no {kind}" f"{more}; do " + "this")\nraise DataError(text)\n')
    assert list(messages.messages(source)) == [("DataError", "…: no …; do this")]


def test_the_diagrams_are_those_of_their_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "docs" / "diagrams" / "draw.py"
    for drawing in script.parent.glob("*.svg"):
        shutil.copy(drawing, tmp_path / f"{drawing.stem}.before")
    shutil.copy(script, tmp_path / "draw.py")
    runpy.run_path(str(tmp_path / "draw.py"), run_name="__main__")
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [path.stem for path in drawn] == sorted(path.stem for path in script.parent.glob("*.svg"))
    for drawing in drawn:
        assert drawing.read_text() == drawing.with_suffix(".before").read_text(), drawing.name


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("pages are looked at in chromium, by chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@pytest.mark.parametrize("name", ["index.html", "paper.html", "errors.html", "api/training.html", "known-data.html"])
def test_a_page_in_a_browser_asks_nobody_and_fits_a_phone(name: str, site: Path, browser: webdriver.Chrome) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.get((site / name).as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert any(address.endswith(".css") for address in asked)
    assert not [address for address in asked if not address.startswith(("file:", "data:", "blob:"))]
