"""The command line as its user meets it: a first run, real mistakes, exit codes."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from asymseg.classes import Classes
from asymseg.cli import app, main
from asymseg.config import Config, read_config
from asymseg.data.files import read_mask
from asymseg.model.seeing import Seeing
from asymseg.prediction import execution
from asymseg.prediction.many import files
from asymseg.prediction.predict import Predictor

Run = Callable[..., tuple[int, str]]

TINY = [
    "--model.backbone=resnet10t",
    "--model.pretrained=false",
    "--model.stages",
    "1",
    "2",
    "--model.key_channels=8",
    "--model.value_channels=8",
    "--model.context_channels=16",
    "--model.aux_channels=8",
    "--data.workers=0",
    "--data.crop_size",
    "32",
    "48",
    "--train.steps=2",
    "--train.batch_size=4",
    "--train.optimizer=adamw",
    "--train.learning_rate=0.001",
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; give its exit code and all it printed, in one line per blank."""

    def running(*arguments: str | Path) -> tuple[int, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return running


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample scenes under `scenes` and a run of two steps under `run`."""
    folder = tmp_path_factory.mktemp("cli")
    main(["sample", str(folder / "scenes"), "--train", "8", "--val", "4", "--test", "2"])
    main(["train", str(folder / "scenes"), "--out", str(folder / "run"), *TINY])
    return folder


def test_a_first_run_in_three_commands(trained: Path, run: Run, tmp_path: Path) -> None:
    assert {"best", "last", "config.yaml", "log.jsonl", "metrics.json", "report.html"} <= {
        path.name for path in (trained / "run").iterdir()
    }
    code, output = run("predict", trained / "run" / "best", trained / "scenes" / "images" / "test", "-o", tmp_path)
    assert code == 0
    assert "2 predicted, 0 failed" in output
    classes = Classes.from_file(trained / "scenes" / "classes.json")
    mask = read_mask(tmp_path / "0000.png", classes)
    assert mask.shape == (96, 192)
    assert int(mask.max()) < len(classes)
    assert (tmp_path / "0000_overlay.jpg").is_file()


def test_the_folded_network_gives_the_same_masks(trained: Path, run: Run, tmp_path: Path) -> None:
    images = trained / "scenes" / "images" / "test"
    shares = {}
    for name, flags in (("folded", ()), ("plain", ("--no-fold",))):
        code, output = run("predict", trained / "run", images, "-o", tmp_path / name, "--probabilities", *flags)
        assert code == 0, output
        shares[name] = np.load(tmp_path / name / "0000_probabilities.npz")["probabilities"]
    for mask in ("0000.png", "0001.png"):
        assert (tmp_path / "folded" / mask).read_bytes() == (tmp_path / "plain" / mask).read_bytes()
    np.testing.assert_allclose(shares["folded"].astype(np.float32), shares["plain"].astype(np.float32), atol=2e-3)


def test_folding_and_precision_when_measuring(
    trained: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for reaches the network, and no score moves."""
    made = []
    prepare = execution.prepare
    monkeypatch.setattr(
        "asymseg.prediction.predict.prepare",
        lambda *args, **settings: made.append(prepare(*args, **settings)) or made[-1],
    )
    scores = []
    for name, flags in (("folded", ()), ("plain", ("--no-fold",)), ("half", ("--precision", "bf16"))):
        code, output = run(
            "evaluate", trained / "run", trained / "scenes", "--split", "test", "--out", tmp_path / name, *flags
        )
        assert code == 0, output
        scores.append(json.loads((tmp_path / name / "metrics.json").read_text())["miou"])
    assert [type(network).__name__ for network in made] == ["FoldedANNNet", "ANNNet", "FoldedANNNet"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert scores[0] == pytest.approx(scores[2], abs=0.05)


def test_evaluate_writes_what_it_measured(trained: Path, run: Run, tmp_path: Path) -> None:
    code, output = run(
        "evaluate",
        trained / "run",
        trained / "scenes",
        "--split",
        "test",
        "--scales",
        "1",
        "0.5",
        "--flip",
        "--out",
        tmp_path,
    )
    assert code == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["images"] == 2
    assert metrics["scales"] == [1.0, 0.5]
    assert metrics["flip"] is True
    assert f"mIoU {metrics['miou']:.4f}" in output
    assert metrics["pixels"] == 2 * 96 * 192


def test_one_image_into_a_named_file_with_probabilities(trained: Path, run: Run, tmp_path: Path) -> None:
    image = trained / "scenes" / "images" / "test" / "0000.png"
    code, _ = run("predict", trained / "run", image, "-o", tmp_path / "said.png", "--probabilities", "--no-overlay")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said.png", "said_probabilities.npz"]
    with np.load(tmp_path / "said_probabilities.npz") as content:
        assert content["probabilities"].shape == (5, 96, 192)
        np.testing.assert_allclose(content["probabilities"].astype(np.float64).sum(0), 1, atol=5e-3)


def test_images_as_a_shell_names_them(trained: Path, run: Run, tmp_path: Path) -> None:
    images = trained / "scenes" / "images"
    command = ("predict", trained / "run", images / "test" / "0000.png", images / "val" / "0001.png", "--no-overlay")
    code, output = run(*command, "-o", tmp_path)
    assert code == 0, output
    assert "2 predicted, 0 failed" in output
    assert (tmp_path / "test" / "0000.png").is_file()
    assert (tmp_path / "val" / "0001.png").is_file()
    (tmp_path / "b.mp4").write_bytes(b"")
    code, output = run(*command, tmp_path / "b.mp4", "-o", tmp_path / "more")
    assert code == 2
    assert f"{tmp_path}/b.mp4: a video, and one command takes one" in output
    assert not (tmp_path / "more").exists()


def test_predict_never_overwrites_its_input(trained: Path, run: Run) -> None:
    images = trained / "scenes" / "images" / "test"
    before = (images / "0000.png").read_bytes()
    code, output = run("predict", trained / "run", images, "-o", images)
    assert code == 2
    assert "choose another folder for -o" in output
    assert (images / "0000.png").read_bytes() == before
    assert len(list(images.iterdir())) == 2


def test_a_corrupt_image_is_named_and_the_rest_goes_on(trained: Path, run: Run, tmp_path: Path) -> None:
    good = (trained / "scenes" / "images" / "test" / "0000.png").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(good[:1000])
    (tmp_path / "in" / "b.png").write_bytes(good)
    code, output = run("predict", trained / "run", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 3
    assert "1 predicted, 1 failed" in output
    assert str(tmp_path / "in" / "a.png") in output.replace(" ", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "b_overlay.jpg"]


def test_resume_goes_on_by_the_settings_of_the_run(run: Run, trained: Path, tmp_path: Path) -> None:
    data, out = trained / "scenes", tmp_path / "run"
    assert run("train", data, "--out", out, *TINY)[0] == 0
    code, output = run("train", data, "--out", out)
    assert code == 2
    assert "--resume" in output
    code, output = run("train", data, "--out", out, "--resume", "--train.steps", "3")
    assert code == 0, output
    assert "resnet10t" in output
    assert "train.steps: 2 -> 3" in output
    assert "going on after step 2" in output


def test_windows_and_the_rest_by_flags(
    trained: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model says how it sees, windows being the training crop; each flag has the last word."""
    seen, predict_files = [], files.predict_files

    def watching(predictor: Predictor, *args: object, **settings: object) -> object:
        seen.append(predictor.info.seeing)
        return predict_files(predictor, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "predict_files", watching)
    image = trained / "scenes" / "images" / "test" / "0000.png"
    slide = ("--mode", "slide", "--window", "64", "80", "--stride", "32", "48", "--weighting", "tapered")
    views = ("--scales", "1", "0.5", "--flip", "--average", "logits")
    for number, flags in enumerate(((), ("--mode", "slide"), (*slide, *views))):
        out = tmp_path / f"{number}.png"
        code, output = run("predict", trained / "run", image, "-o", out, "--no-overlay", *flags)
        assert code == 0, output
        with Image.open(out) as mask:
            assert mask.size == (192, 96)
    assert seen == [
        Seeing(window=(32, 48)),
        Seeing("slide", (32, 48)),
        Seeing("slide", (64, 80), (32, 48), "tapered", (1.0, 0.5), True, "logits"),
    ]
    code, output = run("predict", trained / "run", image, "-o", tmp_path / "x.png", "--window", "64", "80")
    assert code == 2
    assert "window has no effect in the mode whole" in output


@pytest.mark.parametrize(
    ("flags", "section", "name", "value"),
    [
        (("--train.class_weights", "1,2.5"), "train", "class_weights", (1.0, 2.5)),
        (("--train.class_weights", "median_frequency"), "train", "class_weights", "median_frequency"),
        (("--train.clip_norm", "none"), "train", "clip_norm", None),
        (("--model.pool_sizes", "1", "2", "6"), "model", "pool_sizes", (1, 2, 6)),
        (("--model.pretrained", "trunk.safetensors"), "model", "pretrained", Path("trunk.safetensors")),
        (("--model.no-pretrained",), "model", "pretrained", False),
        (("--train.checkpoint_backbone", "true"), "train", "checkpoint_backbone", True),
        (("--data.check", "false"), "data", "check", False),
        (("--data.mean", "0.5", "0.4", "--data.std", "0.2", "0.1"), "data", "std", (0.2, 0.1)),
        (("--eval.scales", "1", "1.5"), "eval", "scales", (1.0, 1.5)),
        (("--eval.mode", "slide", "--eval.window", "64", "96"), "eval", "window", (64, 96)),
        (("--eval.stride", "none"), "eval", "stride", None),
    ],
)
def test_settings_of_every_kind_can_be_given_as_flags(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    section: str,
    name: str,
    value: object,
) -> None:
    main(["train", *flags, "--print-config"])
    path = tmp_path / "all.yaml"
    path.write_text(capsys.readouterr().out)
    assert getattr(getattr(Config.model_validate(read_config(path)), section), name) == value


def rgb_data(root: Path) -> None:
    """Six photographs of odd sizes with RGB masks, as another tool would have left them."""
    rng = np.random.default_rng(0)
    for number in range(6):
        height, width = 31 + 7 * number, 53 - 3 * number
        labels = np.zeros((height, width), dtype=np.int64)
        labels[:, width // 2 :] = 1
        colours = np.array([[200, 0, 0], [0, 0, 200]], dtype=np.uint8)[labels]
        noisy = np.clip(colours.astype(int) + rng.integers(-40, 40, colours.shape), 0, 255).astype(np.uint8)
        for folder, pixels, suffix in (("photos", noisy, "jpg"), ("labels", colours, "png")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"shot {number}.{suffix}")


def test_another_data_set_made_on_the_spot(run: Run, tmp_path: Path) -> None:
    """Each message is the cure for the next step, until the run works."""
    rgb_data(tmp_path)
    command = (
        "train",
        "--images",
        tmp_path / "photos",
        "--masks",
        tmp_path / "labels",
        "--out",
        tmp_path / "run",
        *TINY,
    )

    code, output = run(*command)
    assert code == 2
    assert "RGB mask" in output
    assert "[200, 0, 0]" in output
    assert "[0, 0, 200]" in output
    assert "classes.json" in output

    classes = {"classes": ["left", "right"], "palette": [[200, 0, 0], [0, 0, 200]]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    wrong = np.full((31, 53, 3), (1, 2, 3), dtype=np.uint8)
    right = (tmp_path / "labels" / "shot 0.png").read_bytes()
    Image.fromarray(wrong).save(tmp_path / "labels" / "shot 0.png")
    code, output = run(*command)
    assert code == 2
    assert "shot 0.png" in output
    assert "[1, 2, 3] (1643 pixels)" in output

    (tmp_path / "labels" / "shot 0.png").write_bytes(right)
    photograph = tmp_path / "photos" / "shot 3.jpg"
    content = photograph.read_bytes()
    photograph.write_bytes(content[:300])
    code, output = run(*command)
    assert code == 2
    assert "shot 3.jpg" in output
    assert not (tmp_path / "run" / "best").exists()

    photograph.write_bytes(content)
    code, output = run(*command, "--resume")
    assert code == 0, output
    assert "held out" in output
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "/nowhere"), ("/nowhere", "no such folder")),
        (("train",), ("data folder", "--images")),
        (("train", "--train.stepz", "3"), ("--train.stepz", "--train.steps")),
        (("train", "x", "--train.steps", "many"), ("train.steps", "integer")),
        (("train", "x", "--model.output_stride", "7"), ("model.output_stride", "8, 16 or 32")),
        (("train", "x", "--config", "absent.yaml"), ("absent.yaml", "no such file", "sample")),
        (("evaluate", "/nowhere", "/nowhere"), ("/nowhere", "not a model folder")),
        (("predict", "/nowhere", "x.png", "-o", "out"), ("/nowhere", "not a model folder")),
        (("predict", "m", "x.png", "-o", "out", "--precision", "fp8"), ("--precision", "fp8", "bf16")),
        (("predict", "m", "x.png", "-o", "out", "--mode", "crop"), ("--mode", "crop", "slide")),
        (("train", "x", "--eval.window", "0", "4"), ("eval.window", "greater than 0")),
        (("evaluate", "m", "d", "--precision", "half"), ("--precision", "half", "bf16")),
        (("trian",), ("trian", "train")),
        (("evaluate", "m", "data", "b", "c"), ("b c: more than evaluate takes", "asymseg evaluate --help")),
    ],
)
def test_a_mistake_is_one_line_that_says_the_cure(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert output.startswith("asymseg: ")
    assert "Traceback" not in output
    for word in words:
        assert word in output


def test_yaml_keys_are_checked_and_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train:\n  learning_rat: 0.1\n")
    code, output = run("train", "x", "--config", path)
    assert code == 2
    assert str(path) in output
    assert "'learning_rate'" in output


def test_print_config_is_a_file_to_start_from(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--config", "sample", "--train.steps", "7", "--print-config"])
    path = tmp_path / "all.yaml"
    path.write_text(capsys.readouterr().out)
    config = Config.model_validate(read_config(path))
    assert config.train.steps == 7
    assert config.model.backbone == "resnet10t"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("asymseg.data.sample.write_sample", broken)
    with pytest.raises(ZeroDivisionError):
        main(["sample", str(tmp_path / "scenes")])


@pytest.mark.parametrize(
    "command",
    [[], ["check"], ["train"], ["evaluate"], ["compare"], ["predict"], ["sample"], ["import"], ["models"]],
)
def test_help_loads_no_torch(command: list[str]) -> None:
    code = (
        "import sys\nfrom asymseg.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('LOADED', sorted({'torch', 'timm', 'accelerate', 'numpy.linalg', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Usage: asymseg" in done.stdout
    assert "'torch'" not in done.stdout
    assert "'timm'" not in done.stdout


@pytest.mark.parametrize(("columns", "widest"), [(70, 70), (100, 100), (200, 120)])
def test_help_is_as_wide_as_the_terminal(columns: int, widest: int) -> None:
    shown = io.StringIO()
    app.help_print(["predict"], console=Console(file=shown, width=columns))
    assert max(map(len, shown.getvalue().splitlines())) == widest
    above, table = shown.getvalue().split("╭", 1)
    for paragraph in above.split("\n\n"):
        for line, after in itertools.pairwise(paragraph.splitlines()):  # no line ends before it is full
            assert len(line) + 1 + len(after.split()[0]) > widest or len(line) == widest
    words = " ".join(table.replace("│", " ").split())
    assert "a name of `asymseg models`, a hub id, or what `asymseg export` wrote as NAME.onnx." in words


def test_every_setting_is_a_flag_with_help(run: Run) -> None:
    _, output = run("train", "--help")
    for section, field in Config.model_fields.items():
        for name, knob in field.annotation.model_fields.items():  # type: ignore[union-attr]
            assert f"--{section}.{name}" in output
            assert knob.description, f"{section}.{name} has no sentence"


def test_images_that_are_done_are_left_out_the_second_time(trained: Path, run: Run, tmp_path: Path) -> None:
    images, out = trained / "scenes" / "images" / "test", tmp_path / "masks"
    command = ("predict", trained / "run", images, "-o", out, "--no-overlay", "--resume")
    number = len(list(images.iterdir()))
    code, output = run(*command)
    assert code == 0, output
    assert f"0 done before, {number} predicted, 0 failed" in output
    (out / "0000.png").unlink()
    code, output = run(*command)
    assert code == 0, output
    assert f"{number} done before, 0 predicted, 0 failed" in output
    assert not (out / "0000.png").exists()
    for words in (command[:-1], (*command, "--flip"), (command[0], trained / "run" / "last", *command[2:])):
        code, output = run(*words)
        assert code == 2
        assert str(out) in output
    made_with = json.loads((out / ".predictions" / "run.json").read_text())["made_with"]
    weights = (trained / "run" / "best" / "model.safetensors").read_bytes()
    assert made_with["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert made_with["images"] == str(images)


def test_resume_is_for_images(trained: Path, run: Run, tmp_path: Path) -> None:
    image = trained / "scenes" / "images" / "test" / "0000.png"
    code, output = run("predict", trained / "run", image, "-o", tmp_path / "x.tif", "--resume")
    assert code == 2
    assert "--resume and --engine are for images" in output


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
@pytest.mark.parametrize("words", [["models"], ["train", "--print-config"]])
def test_who_reads_no_further_gets_no_traceback(words):
    """As in `asymseg models | head -1`, here by a reader that has left before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "asymseg", *words], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
