"""`asymseg check` as its user meets it: exit codes, the table, the JSON file and the page."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from label_faults import CLASSES, copied_to_val, half_the_size, make_clean, no_mask, places, undeclared_id

from asymseg.classes import Classes
from asymseg.cli import main
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_clean(tmp_path / "data", train=6, val=3)
    return tmp_path / "data"


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command with results in `out`; give its exit code and what it printed."""

    def running(*arguments: str | Path) -> tuple[int, str]:
        code = 0
        try:
            main(["check", *map(str, arguments), "--out", str(tmp_path / "out")])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return running


def test_clean_data_exits_with_0(data: Path, check: Check, tmp_path: Path) -> None:
    code, text = check(data)
    assert code == 0
    assert "9 images with masks: 0 error(s), 0 warning(s), 0 note(s)" in text
    assert "weight: what --train.class_weights median_frequency would count a class by, above 1 for rare ones" in text
    assert re.search(r"disc +\d\.\d\d % +6 +\d\.\d\d % +3 +\d\.\d{3}", text)
    assert json.loads((tmp_path / "out" / "check.json").read_text())["findings"] == []
    assert "nothing was found" in (tmp_path / "out" / "check.html").read_text()


def test_errors_exit_with_3_and_warnings_alone_with_4(data: Path, check: Check, tmp_path: Path) -> None:
    copied_to_val(places(data)[0])
    code, text = check(data)
    assert code == 4
    assert "warning 2 images across splits are the same pixels: train/000 = val/006" in text
    no_mask(places(data)[1])
    half_the_size(places(data)[2])
    code, text = check(data)
    assert code == 3
    content = json.loads((tmp_path / "out" / "check.json").read_text())
    assert content["counts"] == {"error": 2, "warning": 1, "note": 0}
    assert [finding["kind"] for finding in content["findings"]] == ["missing-mask", "size", "duplicate-across"]
    assert content["findings"][1]["files"] == [str(places(data)[2].mask)]
    assert content["findings"][1]["pairs"] == ["train/004"]


def test_a_part_whose_masks_are_all_unreadable(data: Path, check: Check, tmp_path: Path) -> None:
    for path in (data / "masks" / "val").iterdir():
        path.write_bytes(b"no image")
    code, text = check(data)
    assert code == 3
    assert "error 3 masks" in text
    splits = json.loads((tmp_path / "out" / "check.json").read_text())["splits"]
    assert (list(splits["train"]["pixels"]), splits["val"]["pixels"]) == (CLASSES["classes"], {})


def test_names_that_the_output_cannot_say(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a pipe takes Latin-1 alone, or a file's name is no UTF-8."""
    names = ["地面", *CLASSES["classes"][1:]]
    (data / "classes.json").write_text(json.dumps({**CLASSES, "classes": names}))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    main(["check", str(data), "--out", str(tmp_path / "out"), "--no-gallery"])
    sys.stdout.flush()
    assert rb"\u5730\u9762" in written.getvalue()


def test_the_results_of_two_data_sets_lie_apart(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clean(tmp_path / "more" / "photos", train=2, val=1)
    monkeypatch.chdir(data)
    main(["check", ".", "--no-gallery"])
    main(["check", str(tmp_path / "more" / "photos"), "--no-gallery"])
    main(["check", "--images", "images", "--masks", "masks", "--no-gallery"])
    assert sorted(path.name for path in Path("runs").iterdir()) == ["check-data", "check-images", "check-photos"]
    assert json.loads(Path("runs/check-data/check.json").read_text())["splits"]["train"]["images"] == 6


def test_a_wrong_path_exits_with_2(check: Check, tmp_path: Path) -> None:
    for arguments in ((tmp_path / "no",), (), ("--images", tmp_path), ("citscapes:x",)):
        code, text = check(*arguments)
        assert code == 2
        assert text.startswith("asymseg: ")
        assert text.count("\n") == 1


def test_two_folders_and_files_of_ones_own(data: Path, check: Check, tmp_path: Path) -> None:
    report, page = tmp_path / "a" / "report.json", tmp_path / "b" / "page.html"
    folders = "--images", data / "images", "--masks", data / "masks"
    code, text = check(*folders, "--json", report, "--html", page, "--workers", "1", "--no-near")
    assert code == 0, text
    assert json.loads(report.read_text())["splits"]["val"]["images"] == 3
    assert page.is_file()
    assert not (tmp_path / "out").exists()


def test_the_page_stands_alone_and_shows_what_is_wrong(data: Path, check: Check, tmp_path: Path) -> None:
    (data / "classes.json").write_text(json.dumps({**CLASSES, "classes": ["<b>ground", "disc", "bar", "frame"]}))
    undeclared_id(places(data)[0])
    assert check(data)[0] == 3
    page = (tmp_path / "out" / "check.html").read_text()
    assert page.count('src="data:image/') == 3  # image, labels and overlay
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?://|<script", page)
    assert "&lt;b&gt;ground" in page
    assert "ids that no class has in the mask train/000: 77 (100 pixels in 1 mask)" in page
    assert check(data, "--no-gallery")[0] == 3
    assert "data:image/" not in (tmp_path / "out" / "check.html").read_text()


def test_a_model_is_asked_when_there_are_no_errors(data: Path, check: Check, tmp_path: Path) -> None:
    settings = {"backbone": "resnet10t", "pretrained": False, "stages": (1, 2), "key_channels": 8, "value_channels": 8}
    network = ANNNet(4, **settings, context_channels=16, aux_channels=0)
    classes = Classes.from_dict(CLASSES, "here")
    save_model(tmp_path / "model", network, ModelInfo(classes, (0.5,) * 3, (0.25,) * 3))
    code, text = check(data, "--model", tmp_path / "model", "--split", "val", "--top", "2", "--device", "cpu")
    assert code == 0, text
    assert "likely label errors in val" in text
    assert (tmp_path / "out" / "label_errors.html").is_file()
    (tmp_path / "out" / "label_errors.html").unlink()
    (tmp_path / "out" / "check.json").unlink()
    assert check(data, "--model", tmp_path / "modle")[0] == 2
    assert not (tmp_path / "out" / "check.json").exists()  # told before all pixels are read
    no_mask(places(data)[0])
    code, text = check(data, "--model", tmp_path / "model")
    assert code == 3
    assert "mend the errors first" in text
    assert not (tmp_path / "out" / "label_errors.html").exists()
