"""Pictures to try a model with: the built-in scenes, or those of a folder."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from asymseg.data.sample import make_scene
from asymseg.errors import ConfigError
from asymseg.serving.refusals import Refusal

_KINDS = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
"""What every browser shows."""
_SCENES = 6
_FIRST_SCENE = 2_000_000
_MOST = 100


class Examples:
    """Pictures by name. A request names one of them, and no path.

    Raises ConfigError for a folder without pictures.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.files: dict[str, Path] = {}
        if folder is not None:
            if not folder.is_dir():
                raise ConfigError(f"{folder}: no such folder; give one with pictures for --examples")
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _KINDS and path.is_file())
            self.files = {path.name: path for path in found[:_MOST]}
            if not self.files:
                raise ConfigError(f"{folder}: no pictures in it ({', '.join(_KINDS)}); choose another for --examples")
        self.scenes = {} if self.files else {f"scene-{n + 1}.png": _FIRST_SCENE + n for n in range(_SCENES)}

    @property
    def names(self) -> list[str]:
        return [*self.files, *self.scenes]

    def read(self, name: str) -> tuple[bytes, str]:
        """The picture and its media type. Raises Refusal."""
        if name in self.scenes:
            file = BytesIO()
            Image.fromarray(make_scene(self.scenes[name])[0]).save(file, format="PNG")
            return file.getvalue(), "image/png"
        if name in self.files:
            path = self.files[name]
            try:
                return path.read_bytes(), _KINDS[path.suffix.lower()]
            except OSError:
                raise Refusal(404, "not_found", f"the example {name} is gone") from None
        raise Refusal(404, "not_found", "no example of that name; GET /examples lists them")
