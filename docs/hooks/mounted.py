"""What lies elsewhere in the repository and belongs on the site as it is: results of benchmarks, and examples."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
MOUNTED = {"benchmarks/results": "benchmarks", "examples": "examples"}


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """The pages and files of the site, and those of the folders above."""
    for source, place in MOUNTED.items():
        for path in sorted((ROOT / source).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                uri = f"{place}/{path.relative_to(ROOT / source).as_posix()}"
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files
