"""The server's page in a real browser, in front of a real server with small networks."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import asymseg
from asymseg.classes import Classes
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.result import Result

pytest.importorskip("selenium", reason="selenium is not installed; pip install selenium")
import page_visitor
from page_visitor import Visitor, as_file
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

if not (page_visitor.BROWSER and page_visitor.DRIVER):
    pytest.skip("chromium and chromedriver are not installed; apt-get install chromium-driver", allow_module_level=True)

CLASSES = Classes(("sky", "road", "tree"), palette=((90, 160, 230), (128, 64, 128), (60, 140, 40)))
INFO = ModelInfo(CLASSES, (0.5,) * 3, (0.25,) * 3, license="Apache-2.0", metrics={"miou": 0.5})
SIZE = (96, 160)
KEY = "a key of this test alone"


def picture(height: int = SIZE[0], width: int = SIZE[1], seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 24), -(-width // 24), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(24, 0).repeat(24, 1)[:height, :width])


@pytest.fixture(scope="module")
def network() -> ANNNet:
    """Untrained, but with an opinion: its logits are spread so that each class gets its part of the picture."""
    torch.manual_seed(0)
    narrow = {"key_channels": 8, "value_channels": 8, "context_channels": 16, "aux_channels": 0}
    made = ANNNet(3, "resnet10t", pretrained=False, stages=(1, 2), **narrow).eval()
    x = (torch.from_numpy(picture()).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    with torch.no_grad():
        for block in (made.fusion, made.context):
            nn.init.normal_(block.output.weight, std=1.0)
        made.classifier.weight.mul_(2 / made(x).std((0, 2, 3)).reshape(3, 1, 1, 1))
        made.classifier.bias.sub_(made(x).mean((0, 2, 3)))
    return made


@pytest.fixture(scope="module")
def sources(network: ANNNet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "street", network, INFO)
    save_model(folder / "quick", network, replace(INFO, seeing=Seeing(scales=(0.25,))))
    return {name: str(folder / name) for name in ("street", "quick")}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads: Path) -> Iterator[page_visitor.webdriver.Chrome]:
    with page_visitor.browser(downloads) as driver:
        yield driver


@pytest.fixture(scope="module")
def server(sources: dict[str, str]) -> Iterator[tuple[str, page_visitor.Service]]:
    with page_visitor.serving(sources) as server:
        yield server


@pytest.fixture(scope="module")
def result(sources: dict[str, str]) -> Result:
    """What Python says about the picture: what the page says must be that."""
    told = asymseg.load(sources["street"], device="cpu")(picture())
    assert np.bincount(told.mask.ravel(), minlength=3).min() > 500
    return told


@pytest.fixture
def visitor(server: tuple[str, page_visitor.Service], driver, downloads: Path) -> Visitor:
    visitor = Visitor(driver, server[0], downloads)
    visitor.arrive()
    return visitor


@pytest.fixture
def shown(visitor: Visitor, result: Result) -> Visitor:
    """A visitor who has dropped the picture and sees its classes."""
    visitor.bring(as_file(picture()))
    visitor.seen()
    return visitor


def place_of(mask: np.ndarray, class_id: int) -> tuple[int, int]:
    """A pixel of that class that is not at its border."""
    same = mask == class_id
    inner = same.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            inner &= np.roll(same, shift, axis)
    rows, columns = np.nonzero(inner[4:-4, 4:-4])
    return int(rows[len(rows) // 2]) + 4, int(columns[len(columns) // 2]) + 4


def test_a_dropped_picture_is_painted_and_measured(shown, result):
    counts = np.bincount(result.mask.ravel(), minlength=3)
    order = np.argsort(-counts)
    rows = [[part.text for part in row.find_elements("css selector", "span")] for row in shown.all("#legend li")]
    assert rows == [[CLASSES.names[n], f"{100 * counts[n] / result.mask.size:.1f} %", f"{counts[n]:,}"] for n in order]
    for class_id, colour in enumerate(CLASSES.palette):
        assert shown.colour_at("classes", *place_of(result.mask, class_id)) == [*colour, 255]
    assert shown.colour_at("picture", 40, 70) == [*picture()[40, 70], 255]
    assert not shown.one("#hero").is_displayed()


@pytest.mark.parametrize("way", ["paste", "file", "example"])
def test_other_ways_to_bring_a_picture(visitor, tmp_path, way):
    if way == "paste":
        visitor.bring(as_file(picture()), how="paste", kind="image/png")
    elif way == "file":
        (tmp_path / "street.png").write_bytes(as_file(picture()))
        visitor.one("#file").send_keys(str(tmp_path / "street.png"))
    else:
        visitor.until("document.querySelectorAll('#examples img').length > 0")
        visitor.one("#examples button").click()
    visitor.seen()
    assert visitor.ask("document.querySelectorAll('#legend li').length") > 0


def test_hover_names_the_class(shown, result):
    for class_id, name in enumerate(CLASSES.names):
        shown.to_pixel(*place_of(result.mask, class_id), SIZE).perform()
        assert shown.text("#tip") == name
        assert shown.one("#legend .here .name").text == name
    ActionChains(shown.driver, duration=0).move_to_element(shown.one(".brand")).perform()
    assert not shown.one("#tip").is_displayed()


def test_click_tells_probabilities_and_draws_the_regions(shown, result):
    row, column = place_of(result.mask, 1)
    shown.to_pixel(row, column, SIZE).click().perform()
    shown.until("document.querySelectorAll('.choice button').length === 3")
    shares = result.probabilities[:, row, column]
    bars = [line.text.split("\n") for line in shown.all(".bars li")]
    assert [name for name, _ in bars] == [CLASSES.names[n] for n in np.argsort(-shares)]
    told = [float(share.strip("< %")) for _, share in bars]
    assert told == pytest.approx(sorted(100 * shares, reverse=True), abs=0.11)
    assert shown.ask("document.body.dataset.view") == "regions"

    for button, name in zip(shown.all(".choice button")[1:], ("fusion", "context"), strict=True):
        button.click()
        heat = result.attention(row, column)[name].heat
        scale = shown.ask("document.getElementById('regions').width") // SIZE[1]
        sample = [(int(r), int(c)) for r, c in np.argwhere(heat >= 0)[:: heat.size // 60]]
        drawn = [shown.colour_at("regions", scale * r + scale // 2, scale * c + scale // 2) for r, c in sample]
        expected = [np.sqrt(heat[place] / heat.max()) for place in sample]
        # The maps' cells do not divide the regions' borders as evenly as the picture's pixels do.
        assert np.corrcoef([opacity / 255 for *_, opacity in drawn], expected)[0, 1] > 0.9
        strong = result.attention(row, column)[name]
        boxes = strong.boxes
        areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        most = strong.weights[areas < heat.size].max()
        framed = [f"{100 * most:.0f} %"] if most * len(areas) >= 2 else []  # twice the even share
        assert [box.get_attribute("data-share") for box in shown.all("#strong b")] == framed


def test_the_way_back_from_a_pixel(shown, result):
    shown.to_pixel(*place_of(result.mask, 0), SIZE).click().perform()
    shown.until("document.querySelector('.bars')")
    shown.one("#pixel .head button").click()
    assert shown.ask("document.body.dataset.view") == "classes"
    assert not shown.one("#pixel").is_displayed()
    assert not shown.one("#ring").is_displayed()


def test_all_of_it_by_keyboard(shown, result):
    frame = shown.one("#frame")
    frame.send_keys(Keys.ARROW_RIGHT * 3, Keys.ARROW_DOWN)
    step, row, column = max(1, round(SIZE[1] / 50)), SIZE[0] // 2, SIZE[1] // 2
    row, column = row + step, column + 3 * step
    name = CLASSES.names[result.mask[row, column]]
    assert shown.text("#tip") == shown.text("#say") == name
    ActionChains(shown.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_UP).key_up(Keys.SHIFT).perform()
    frame.send_keys(Keys.ENTER)
    shown.until("document.querySelector('.bars')")
    assert f"row {row - 1}, column {column}" in shown.text("#pixel")
    assert shown.text("#say").startswith(f"Row {row - 1}, column {column}")
    frame.send_keys(Keys.ESCAPE)
    assert shown.ask("document.body.dataset.view") == "classes"
    frame.send_keys(Keys.ARROW_LEFT * 200)
    assert shown.text("#tip") == CLASSES.names[result.mask[row - 1, 0]]


def test_what_has_the_focus_is_seen(shown):
    ActionChains(shown.driver).send_keys(Keys.TAB).perform()
    for _ in range(4):
        ActionChains(shown.driver).send_keys(Keys.TAB).perform()
        outline = shown.ask("getComputedStyle(document.activeElement).outline")
        assert "solid 2px" in outline or "2px solid" in outline


def test_classes_are_hidden_and_lit(shown, result):
    places = [place_of(result.mask, class_id) for class_id in range(3)]

    def covers() -> list[int]:
        return [shown.colour_at("classes", *place)[3] for place in places]

    def row(class_id: int) -> str:
        return f"#legend li[data-id='{class_id}']"

    shown.one(f"{row(1)} input").click()
    ActionChains(shown.driver, duration=0).move_to_element(shown.one(".brand")).perform()
    assert covers() == [255, 0, 255]
    shown.one("#all").click()  # Show all
    assert covers() == [255, 255, 255]
    ActionChains(shown.driver, duration=0).move_to_element(shown.one(row(2))).perform()
    lit = covers()
    assert lit[2] == 255
    assert max(lit[:2]) < 100
    shown.one("#all").click()  # Hide all
    assert covers() == [0, 0, 0]


def test_opacity(shown):
    slider = shown.one("#opacity")
    slider.send_keys(Keys.HOME)
    assert float(shown.ask("getComputedStyle(document.getElementById('classes')).opacity")) == 0
    slider.send_keys(Keys.END)
    assert float(shown.ask("getComputedStyle(document.getElementById('classes')).opacity")) == 1


def test_mask_and_overlay_are_saved_as_python_saves_them(shown, result, tmp_path):
    shown.one("#save-mask").click()
    ours = Image.open(io.BytesIO(shown.download("street-mask.png")))
    result.save(tmp_path / "mask.png")
    theirs = Image.open(tmp_path / "mask.png")
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    assert ours.getpalette()[:9] == theirs.getpalette()[:9]

    shown.one("#opacity").send_keys(Keys.END, *[Keys.ARROW_LEFT] * 25)
    shown.one("#legend li[data-id='2'] input").click()
    shown.one("#save-overlay").click()
    overlay = np.asarray(Image.open(io.BytesIO(shown.download("street-overlay.jpg"))))
    for class_id in range(3):
        row, column = place_of(result.mask, class_id)
        share = 0 if class_id == 2 else 0.75
        wanted = share * np.array(CLASSES.palette[class_id]) + (1 - share) * picture()[row, column]
        assert np.abs(overlay[row, column] - wanted).max() < 25  # JPEG, and colours in halved resolution


def test_what_is_no_picture_is_told_kindly_and_takes_nothing_away(shown):
    shown.bring(b"dear diary", "diary.txt")
    shown.until("!document.getElementById('notice').hidden")
    assert "not seem to be a picture" in shown.text("#notice")
    assert "diary.txt" in shown.text("#notice")
    assert shown.one("#notice").get_attribute("role") == "alert"
    assert shown.ask("document.body.dataset.state") == "done"
    assert len(shown.all("#legend li")) == 3
    shown.one("#notice .icon").click()
    assert not shown.one("#notice").is_displayed()


def test_a_server_that_is_gone_can_be_asked_again(visitor):
    visitor.until("document.querySelectorAll('#examples img').length > 0")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    visitor.driver.execute_cdp_cmd("Network.enable", {})
    visitor.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    try:
        visitor.bring(as_file(picture()))
        visitor.until("!document.getElementById('notice').hidden")
    finally:
        visitor.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    assert "does not answer" in visitor.text("#notice")
    assert visitor.one("#hero").is_displayed()
    visitor.one("#notice button:not(.icon)").click()
    visitor.seen()


def test_a_busy_server_is_waited_for(visitor, server):
    room = server[1].room
    room.stopping = True
    try:
        visitor.bring(as_file(picture()))
        visitor.until("document.querySelector('#status span').textContent.includes('busy')")
    finally:
        room.stopping = False
    visitor.seen()


def test_while_it_looks_the_page_lives_and_can_be_told_to_stop(shown, server):
    goes_on = threading.Event()
    server[1].models.workers["street"].do(lambda: goes_on.wait(page_visitor.PATIENCE))
    try:
        shown.bring(as_file(picture(seed=1)), "next.png")
        shown.until("document.body.dataset.state === 'busy'")
        shown.until("document.getElementById('picture').width === 160")
        assert shown.one("#status").is_displayed()
        assert shown.ask("document.getElementById('tools').inert")
        shown.one("#status button").click()
        shown.seen()
    finally:
        goes_on.set()
    assert shown.colour_at("picture", 40, 70) == [*picture()[40, 70], 255]
    assert not shown.one("#notice").is_displayed()


def test_a_result_that_the_server_forgot_is_asked_for_anew(shown, server, result):
    server[1].kept.tidy()
    server[1].kept._entries.clear()
    row, column = place_of(result.mask, 2)
    shown.to_pixel(row, column, SIZE).click().perform()
    shown.until("document.querySelector('.bars')")
    assert shown.one(".bars li .name").text == CLASSES.names[int(result.probabilities[:, row, column].argmax())]


def test_twelve_megapixels_by_a_model_of_choice(visitor, server):
    visitor.until("!document.querySelector('#model select').hidden")
    visitor.one("#model option[value='quick']").click()
    visitor.bring(as_file(picture(3000, 4000), "JPEG", quality=60), "large.jpg")
    visitor.seen()
    kept = next(reversed(server[1].kept._entries.values())).result
    assert kept.mask.shape == (3000, 4000)
    assert visitor.ask("['picture', 'classes'].map((id) => document.getElementById(id).width)") == [2560, 2560]
    for row, column in ((40, 60), (1500, 2000), (2950, 3900)):
        visitor.to_pixel(row, column, (3000, 4000)).perform()
        near = kept.mask[row - 4 : row + 5, column - 4 : column + 5]  # a pixel of the screen is several of the picture
        assert visitor.text("#tip") in {CLASSES.names[n] for n in near.ravel()}
    visitor.one("#save-mask").click()
    mask = np.asarray(Image.open(io.BytesIO(visitor.download("large-mask.png"))))
    assert np.array_equal(mask, kept.mask)


def test_a_photo_that_lies_on_its_side_stands_up(visitor):
    turned = Image.fromarray(picture()).rotate(90, expand=True)  # and the tag says: turn it back
    exif = Image.Exif()
    exif[0x0112] = 6
    visitor.bring(as_file(np.asarray(turned), "JPEG", quality=95, exif=exif), "photo.jpg")
    visitor.seen()
    assert "160 \u00d7 96 pixels" in visitor.text("#facts")
    colour = visitor.colour_at("picture", 36, 60)[:3]
    assert np.abs(np.array(colour) - picture()[36, 60]).max() < 30


def test_a_format_that_no_browser_shows_is_shown(visitor, result):
    visitor.bring(as_file(picture(), "TIFF"), "scan.tif")
    visitor.seen()
    assert np.abs(np.array(visitor.colour_at("picture", 36, 60)[:3]) - picture()[36, 60]).max() < 30
    assert visitor.colour_at("classes", *place_of(result.mask, 1)) == [*CLASSES.palette[1], 255]


def test_a_server_with_keys(sources, driver, downloads):
    with page_visitor.serving({"street": sources["street"]}, keys=(KEY,)) as (address, _):
        visitor = Visitor(driver, address, downloads)
        visitor.arrive()
        visitor.until("document.getElementById('key').open")
        visitor.one("#key input").send_keys("wrong", Keys.ENTER)
        visitor.until("document.getElementById('key').open && !document.querySelector('[data-wrong]').hidden")
        visitor.one("#key input").send_keys(KEY, Keys.ENTER)
        visitor.until("document.querySelectorAll('#examples img').length > 0")
        visitor.bring(as_file(picture()))
        visitor.seen()
        driver.get("about:blank")  # so that no request holds the server up


CONTRASTS = """
const brush = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
const light = (colours) => {
  for (const colour of colours) {
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
  }
  const [r, g, b] = [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const own = (element) => getComputedStyle(element).backgroundColor;
const ground = (element) => (element ? [...ground(element.parentElement), own(element)] : []);
const told = {};
for (const element of document.querySelectorAll("h2, h3, p, span, button, dt, dd, summary, label")) {
  if (!element.checkVisibility() || !element.textContent.trim() || element.closest(".unseen, #veil, [inert]")) continue;
  const [one, other] = [light([getComputedStyle(element).color]), light(ground(element))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  told[`${element.tagName} ${element.textContent.trim().slice(0, 20)}`] = ratio;
}
return told;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_both_themes_can_be_read(visitor, result, dark):
    visitor.arrive(dark=dark)
    visitor.until("document.querySelectorAll('#examples img').length > 0")
    ratios = visitor.driver.execute_script(CONTRASTS)
    visitor.bring(as_file(picture()))
    visitor.seen()
    visitor.one("#about summary").click()
    visitor.to_pixel(*place_of(result.mask, 1), SIZE).click().perform()
    visitor.until("document.querySelector('.bars')")
    ratios |= visitor.driver.execute_script(CONTRASTS)
    assert len(ratios) > 25
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}  # WCAG 2.2, 1.4.3


def test_the_chosen_theme_stays(visitor):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visitor.ask(ground)
    visitor.one("#theme").click()
    dark = visitor.ask(ground)
    assert dark != light
    visitor.arrive()
    assert visitor.ask(ground) == dark
    visitor.one("#theme").click()
    assert visitor.ask(ground) == light
    visitor.ask("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_narrow_screens(visitor, result, width):
    visitor.arrive(width, 800)
    visitor.until("document.querySelectorAll('#examples img').length > 0")
    assert visitor.ask("document.documentElement.scrollWidth") <= width
    visitor.bring(as_file(picture()))
    visitor.seen()
    visitor.to_pixel(*place_of(result.mask, 1), SIZE).click().perform()
    visitor.until("document.querySelector('.bars')")
    assert visitor.ask("document.documentElement.scrollWidth") <= width
    sides = visitor.ask(
        "[...document.querySelectorAll('button, summary, #legend label')].filter((each) => each.checkVisibility())"
        ".map((each) => Math.min(each.getBoundingClientRect().width, each.getBoundingClientRect().height))"
    )
    assert min(sides) >= 24  # WCAG 2.2, 2.5.8


def test_nothing_comes_from_elsewhere_and_nothing_is_complained_of(shown):
    shown.driver.get_log("browser")
    shown.arrive(still=False)
    shown.until("document.querySelectorAll('#examples img').length > 0")
    shown.bring(as_file(picture()))
    shown.seen()
    addresses = shown.ask("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(addresses) > 15
    assert [each for each in addresses if not each.removeprefix("blob:").startswith(shown.address)] == []
    assert [json.dumps(line) for line in shown.driver.get_log("browser")] == []
