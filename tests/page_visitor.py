"""A browser that visits the server's page, and the server itself, both for as long as the tests of a file run."""

import io
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from asymseg.serving.app import make_app
from asymseg.serving.examples import Examples
from asymseg.serving.guard import Guard
from asymseg.serving.room import Limits
from asymseg.serving.service import Service

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
PATIENCE = 60
"""Seconds until a test gives up; none waits for as long as that where all is well."""

_BRING = """
const [how, name, type, bytes] = arguments;
const files = new DataTransfer();
if (bytes) files.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name, {type}));
const given = {bubbles: true, cancelable: true};
if (how === "paste") {
  document.body.dispatchEvent(new ClipboardEvent("paste", {...given, clipboardData: files}));
} else {
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, {...given, dataTransfer: files, clientX: 200, clientY: 200}));
  }
}
"""


@contextmanager
def serving(sources: dict[str, str], keys: tuple[str, ...] = ()) -> Iterator[tuple[str, Service]]:
    """Address and inside of a server that runs in this process."""
    service = Service(sources, "cpu", Limits())
    guard = Guard(make_app(service, Examples(None)), keys=keys)
    server = uvicorn.Server(uvicorn.Config(guard, log_level="error", ws="none", loop="asyncio"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", service
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    """A browser without a window that keeps what it downloads in that folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        allow = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
        yield driver
    finally:
        driver.quit()


class Visitor:
    """Someone who sees the page, and has a mouse, keys and files."""

    def __init__(self, driver: webdriver.Chrome, address: str, downloads: Path) -> None:
        self.driver, self.address, self.downloads = driver, address, downloads

    def arrive(self, width: int = 1200, height: int = 800, *, dark: bool = False, still: bool = True) -> None:
        """Open the page anew in a window of that size; `still` asks it not to move."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        wishes = {"prefers-color-scheme": "dark" if dark else "light"}
        wishes["prefers-reduced-motion"] = "reduce" if still else ""
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(self.address)

    def ask(self, expression: str, *given: Any) -> Any:
        """The value of an expression on the page."""
        return self.driver.execute_script(f"return {expression}", *given)

    def until(self, expression: str) -> Any:
        """Wait until an expression holds on the page, and give its value."""
        return WebDriverWait(self.driver, PATIENCE, 0.02).until(lambda _: self.ask(expression), expression)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.ask("document.querySelector(arguments[0]).textContent", selector))

    def bring(self, content: bytes, name: str = "street.png", *, how: str = "drop", kind: str = "") -> None:
        """Drop or paste a file."""
        from base64 import b64encode

        self.driver.execute_script(_BRING, how, name, kind, b64encode(content).decode())

    def seen(self) -> None:
        """Wait until the picture that was brought has been looked at."""
        self.until("document.body.dataset.state === 'done'")

    def to_pixel(self, row: int, column: int, size: tuple[int, int]) -> ActionChains:
        """The mouse on its way to a pixel of a picture of that height and width."""
        frame = self.one("#frame")
        across, down = frame.size["width"], frame.size["height"]
        x = round(((column + 0.5) / size[1] - 0.5) * across)
        y = round(((row + 0.5) / size[0] - 0.5) * down)
        return ActionChains(self.driver, duration=0).move_to_element_with_offset(frame, x, y)

    def colour_at(self, layer: str, row: int, column: int) -> list[int]:
        """Red, green, blue and opacity of a pixel of one of the layers over the picture."""
        brush = "document.getElementById(arguments[0]).getContext('2d')"
        return list(self.ask(f"[...{brush}.getImageData(arguments[2], arguments[1], 1, 1).data]", layer, row, column))

    def download(self, name: str) -> bytes:
        """The content of a file that is on its way into the folder of downloads."""
        path = self.downloads / name
        WebDriverWait(self.driver, PATIENCE, 0.02).until(lambda _: path.exists(), name)
        content = path.read_bytes()
        path.unlink()
        return content


def as_file(pixels: np.ndarray, kind: str = "PNG", **settings: Any) -> bytes:
    """The picture as a file of that format."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()
