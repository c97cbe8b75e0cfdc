"""Whole runs on tiny data: what they write, say and refuse, and that a killed one goes on to the same bits."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.status import Status
from safetensors.torch import load_file
from tiny_runs import TINY, Killed, equal, kill_before, quiet, run, state, timeless, tiny

import asymseg.training.train as module
import asymseg.training.validation as validation
from asymseg.config import make_config
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.data.sample import make_scene, write_sample
from asymseg.errors import CheckpointError, ConfigError, TrainingError
from asymseg.model.checkpoint import load_model
from asymseg.training.log import RunLog, read_log
from asymseg.training.loss import Loss
from asymseg.training.plan import make_network, synchronise_on_cuda
from asymseg.training.train import train

# The results do not depend on how many cores there are; how many workers are wise does.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The networks are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=10, val=2, test=1)
    return folder


def test_a_run_leaves_all_it_promises(data, tmp_path):
    out = tmp_path / "run"
    config = tiny(steps=3, validate_every=1, save_every=1, log_every=1)
    result, shown = run(data, config, out, report=True)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "best",
        "config.yaml",
        "last",
        "last.previous",
        "log.jsonl",
        "metrics.json",
        "report.html",
        "tensorboard",
    ]
    assert list((out / "tensorboard").glob("events*"))
    assert make_config(yaml.safe_load((out / "config.yaml").read_text())) == config
    entries = read_log(out)
    assert [(entry["kind"], entry["step"]) for entry in entries] == [
        (kind, step) for step in (1, 2, 3) for kind in ("train", "validation")
    ]
    rates = [entry["learning_rate"] for entry in entries if entry["kind"] == "train"]
    assert rates == pytest.approx([0.01, 0.01 * (2 / 3) ** 0.9, 0.01 * (1 / 3) ** 0.9])

    metrics = json.loads((out / "metrics.json").read_text())
    mious = [entry["miou"] for entry in entries if entry["kind"] == "validation"]
    assert metrics["miou"] == result.scores.miou == max(mious)
    assert metrics["split"] == "val"
    network, info = load_model(out / "best")
    assert info.metrics["miou"] == max(mious)
    assert info.metrics["step"] == mious.index(max(mious)) + 1
    assert info.classes == open_dataset(data).classes
    assert info.source == "trained by asymseg on 10 images"
    assert network.settings["pool_sizes"] == (1, 2)
    assert "learning rate" in (out / "report.html").read_text(encoding="utf-8").lower()
    _, measured = shown.split("measuring the best model on 2 validation images, for the report")
    assert f"best model (step {info.metrics['step']}): validation mIoU {max(mious):.4f}" in measured


def test_a_terminal_shows_how_far_a_validation_is(data, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(RunLog, "validating", lambda log, done, images: told.append((done, images)))
    monkeypatch.setattr(Status, "update", lambda status, words: told.append(words))
    run(data, tiny(steps=1), tmp_path / "run", report=True)
    assert told == [(1, 2), (2, 2), "measuring: image 1 of 2", "writing the report"]


def test_the_plan_is_shown_before_the_first_step(data, tmp_path, monkeypatch):
    kill_before(0, monkeypatch)
    console = quiet()
    config = tiny(steps=20, backbone_factor=0.1, warmup_steps=3)
    with pytest.raises(Killed):
        train(data, config, out=tmp_path / "run", console=console)
    shown = console.file.getvalue()
    network = make_network(config, 5)
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    for text in (
        "10 train, 2 val, 1 test",
        "5: ground, beacon, red disc, green disc, blue disc",
        f"{count:.1f} M parameters",
        "20 (4.0 epochs)",
        "2 x 32x64",
        "sgd, rate 0.01, backbone 0.001",
        "warm-up 3",
        str(tmp_path / "run"),
    ):
        assert text in shown
    assert "warning: BatchNorm sees 2 image(s)" in shown
    assert "freeze_batchnorm" in shown


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"batch_size": 4}, None),
        # The head's BatchNorm still learns, so what is left to do is said, and what was done is not.
        ({"freeze_batchnorm": True}, "BatchNorm sees 2 image(s) at a time, fewer than 4: poor statistics; raise"),
    ],
)
def test_batchnorm_warning_says_what_is_left_to_do(data, tmp_path, monkeypatch, settings, expected):
    kill_before(0, monkeypatch)
    console = quiet()
    with pytest.raises(Killed):
        train(data, tiny(**settings), out=tmp_path / "run", console=console)
    shown = console.file.getvalue()
    assert ("BatchNorm" in shown) == (expected is not None)
    assert expected is None or expected in shown
    assert "freeze_batchnorm" not in shown


def test_names_in_brackets_are_shown_as_they_are(data, tmp_path, monkeypatch):
    """Rich would take them for its own marks."""
    dataset = open_dataset(data)
    names = ("[ground]", "[red]", "c", "d", "[/e]")
    classes = type(dataset.classes)(names, dataset.classes.palette)
    kill_before(0, monkeypatch)
    console = quiet()
    with pytest.raises(Killed):
        train(DataSet(classes, dataset.splits, ("a [note]",)), tiny(), out=tmp_path / "run", console=console)
    assert ", ".join(names) in console.file.getvalue()
    assert "a [note]" in console.file.getvalue()


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0, "optimizer": "sgd"},
        {"workers": 0, "optimizer": "sgd", "channels_last": False},
        {"workers": 2, "optimizer": "adamw", "ema": 0.5, "clip_norm": 0.1, "accumulation": 2},
    ],
    ids=["sgd", "contiguous", "adamw"],
)
def test_a_killed_run_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, settings):
    """Killed in step 4 of 5, saved after 2; a log line is due after 3, so its mean spans the restart."""
    settings = {"steps": 5, **settings}
    workers = settings.pop("workers")
    config = make_config(TINY, {"train": settings, "data": {"workers": workers}})
    whole, _ = run(data, config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_before(3, patch)
        with pytest.raises(Killed):
            train(data, config, out=tmp_path / "killed", console=quiet())
    assert state(tmp_path / "killed")["progress"]["step"] == 2
    assert [entry["step"] for entry in read_log(tmp_path / "killed")] == [2, 3]
    resumed, shown = run(data, config, tmp_path / "killed", resume=True)

    assert "going on after step 2" in shown
    assert equal(state(tmp_path / "whole"), state(tmp_path / "killed"))
    for part in ("last", "best"):
        for name in ("model.safetensors", "config.json"):
            one, two = ((tmp_path / out / part / name).read_bytes() for out in ("whole", "killed"))
            assert one == two
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "killed")
    assert torch.equal(whole.matrix, resumed.matrix)


def test_workers_change_nothing(data, tmp_path):
    weights = []
    for workers in (0, 2):
        config = make_config(TINY, {"data": {"workers": workers}})
        run(data, config, tmp_path / str(workers))
        weights.append(load_file(tmp_path / str(workers) / "last" / "model.safetensors"))
    assert equal(*weights)


def test_a_finished_run_resumed_does_no_step(data, tmp_path):
    run(data, tiny(), tmp_path / "run")
    before = (tmp_path / "run" / "last" / "training.pt").read_bytes(), timeless(tmp_path / "run")
    _, shown = run(data, tiny(), tmp_path / "run", resume=True)
    assert "going on after step 2" in shown
    assert ((tmp_path / "run" / "last" / "training.pt").read_bytes(), timeless(tmp_path / "run")) == before


def test_resume_where_nothing_was_saved_starts_from_the_beginning(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_before(1, patch)
        with pytest.raises(Killed):
            train(data, tiny(), out=tmp_path / "run", console=quiet())
    run(data, tiny(), tmp_path / "run", resume=True)
    assert state(tmp_path / "run")["progress"]["step"] == 2


def test_a_folder_that_holds_a_run_is_not_trained_into_again(data, tmp_path, monkeypatch):
    kill_before(1, monkeypatch)
    with pytest.raises(Killed):
        train(data, tiny(), out=tmp_path / "run", console=quiet())
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(TrainingError, match=r"run: holds a run already; .*--resume.*--out"):
        train(data, tiny(), out=tmp_path / "run", console=quiet())
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


def test_resume_with_another_network_is_refused(data, tmp_path):
    run(data, tiny(), tmp_path / "run")
    other = make_config(TINY, {"model": {"context_channels": 24}})
    with pytest.raises(CheckpointError, match=r"training\.pt: cannot be resumed"):
        train(data, other, out=tmp_path / "run", resume=True, console=quiet())


def test_a_loss_that_is_not_finite_names_step_images_and_the_good_state(data, tmp_path, monkeypatch):
    def spoiled(settings, weights) -> tuple[Loss, Loss]:
        def main(logits, labels):
            calls.append(labels)
            return logits.sum() * (float("nan") if len(calls) == 3 else 1), torch.tensor(logits.numel())

        return Loss(main, None), Loss(lambda logits, labels: (logits.sum(), torch.tensor(logits.numel())), None)

    calls: list[torch.Tensor] = []
    monkeypatch.setattr("asymseg.training.step.make_loss", spoiled)
    with pytest.raises(TrainingError) as caught:
        train(data, tiny(steps=4), out=tmp_path / "run", console=quiet())
    message = str(caught.value)
    assert re.match(
        r"the loss of step 3 is nan on \d{4}, \d{4}; lower train.learning_rate, .*; the last good state is .*last: ",
        message,
    )
    assert "--resume" in message
    assert "\n" not in message
    assert state(tmp_path / "run")["progress"]["step"] == 2


def test_weights_that_are_not_finite_are_not_saved_over_a_good_state(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "learning_rate", lambda step, settings: float("inf") if step == 1 else 0.01)
    with pytest.raises(TrainingError, match="step 2 made weights that are not finite; .*; the last good state is"):
        train(data, tiny(save_every=1, validate_every=1), out=tmp_path / "run", console=quiet())
    assert state(tmp_path / "run")["progress"]["step"] == 1
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["metrics"]["step"] == 1


def test_a_rate_far_too_high_stops_in_one_line(data, tmp_path):
    with pytest.raises(TrainingError, match=r"^[^\n]*nothing was saved yet[^\n]*$"):
        train(data, tiny(learning_rate=1e30), out=tmp_path / "run", console=quiet())
    assert not (tmp_path / "run" / "last").exists()
    assert not (tmp_path / "run" / "best").exists()


@pytest.fixture
def unlabelled(tmp_path) -> Path:
    """Two training images of which every pixel is ignored, and a validation image with labels."""
    for split, number in (("train", 0), ("train", 1), ("val", 2)):
        image, mask = make_scene(number, 64, 96)
        for kind, pixels in (("images", image), ("masks", mask if split == "val" else np.full_like(mask, 255))):
            path = tmp_path / "data" / kind / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "data"


@pytest.mark.parametrize("settings", [{}, {"loss": "ohem"}, {"precision": "bf16"}])
def test_masks_that_are_all_ignored_train_on(unlabelled, tmp_path, settings):
    _, shown = run(unlabelled, tiny(log_every=1, **settings), tmp_path / "run")
    assert [entry["loss"] for entry in read_log(tmp_path / "run") if entry["kind"] == "train"] == [0, 0]
    assert all(tensor.isfinite().all() for tensor in state(tmp_path / "run")["network"].values())
    assert "every pixel is ignored in 0, 1" in shown


def test_class_weights(data, tmp_path, monkeypatch):
    seen = []

    def noting(settings, weights):
        seen.append(weights)
        raise Killed

    monkeypatch.setattr("asymseg.training.step.make_loss", noting)
    counts = np.zeros(5)
    seen_in = np.zeros(5)
    for path in (data / "masks" / "train").iterdir():
        here = np.bincount(np.array(Image.open(path)).ravel(), minlength=5)
        counts += here
        seen_in += (here > 0) * here.sum()
    frequency = counts / seen_in
    for number, settings in enumerate(
        ({"class_weights": "median_frequency"}, {"class_weights": (1.0, 2.0, 3.0, 4.0, 0.5)}, {})
    ):
        with pytest.raises(Killed):
            train(data, tiny(**settings), out=tmp_path / str(number), console=quiet())
    assert seen[0].tolist() == pytest.approx((np.median(frequency) / frequency).tolist(), rel=1e-5)
    assert seen[1].tolist() == [1.0, 2.0, 3.0, 4.0, 0.5]
    assert seen[2] is None


def test_class_weights_without_the_check_are_counted_all_the_same(data, tmp_path):
    config = make_config(TINY, {"train": {"class_weights": "median_frequency"}, "data": {"check": False}})
    run(data, config, tmp_path / "run")
    assert read_log(tmp_path / "run")[-1]["kind"] == "validation"


def test_class_weights_of_another_number_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="train.class_weights has 2 numbers for 5 classes"):
        train(data, tiny(class_weights=(1.0, 2.0)), out=tmp_path / "run", console=quiet())


def test_no_auxiliary_classifier_at_weight_zero(data, tmp_path):
    run(data, tiny(aux_weight=0), tmp_path / "run")
    network, _ = load_model(tmp_path / "run" / "last")
    assert network.aux_classifier is None


def test_a_frozen_backbone_stays_as_it_is_and_the_head_learns(data, tmp_path):
    """Its moving statistics as well: who freezes a backbone wants to find the same one in the model."""
    config = tiny(backbone_factor=0)
    torch.manual_seed(config.train.seed)
    before = make_network(config, 5).state_dict()
    run(data, config, tmp_path / "run")
    after = state(tmp_path / "run")["network"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if name.startswith("backbone.")}
    assert {"classifier.weight", "project.0.weight", "project.1.running_mean", "aux_classifier.0.weight"} <= changed


def test_frozen_batchnorm_stays_while_convolutions_learn(data, tmp_path):
    config = tiny(freeze_batchnorm=True)
    torch.manual_seed(config.train.seed)
    before = make_network(config, 5).state_dict()
    run(data, config, tmp_path / "run")
    after = state(tmp_path / "run")["network"]
    statistics = [name for name in before if name.startswith("backbone.") and "running" in name]
    assert statistics
    for name in statistics:
        layer = name.rpartition(".")[0]
        for part in ("running_mean", "running_var", "weight", "bias"):
            assert torch.equal(before[f"{layer}.{part}"], after[f"{layer}.{part}"])
    convolutions = [name for name in before if name.startswith("backbone.") and before[name].dim() == 4]
    assert all(not torch.equal(before[name], after[name]) for name in convolutions)


def test_bf16_runs_even_after_another_precision_and_its_average_is_its_own(data, tmp_path):
    """The average is a copy of a network whose forward was wrapped; it must use its own weights."""
    run(data, tiny(steps=1, precision="fp32"), tmp_path / "fp32")
    run(data, tiny(steps=1, precision="bf16"), tmp_path / "bf16")
    one, two = (read_log(tmp_path / name)[0]["loss"] for name in ("fp32", "bf16"))
    assert one != two
    assert one == pytest.approx(two, rel=0.05)

    seen = []

    def noting(work, *arguments):
        network = work.run.evaluated
        images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            before = network.eval()(images)
            network.classifier.bias += 1
            seen.append((network(images) - before).mean().item())
        return original(work, *arguments)

    original = validation._measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_measure", noting)
        run(data, tiny(steps=1, precision="bf16", ema=0.9), tmp_path / "ema")
    assert seen == [pytest.approx(1, abs=0.05)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 runs there")
def test_fp16_without_a_gpu_is_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="train.precision = fp16 needs a CUDA device"):
        train(data, tiny(precision="fp16"), out=tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_four_channels_with_measured_normalisation(tmp_path):
    rng = np.random.default_rng(0)
    values = []
    for number in range(3):
        image = rng.integers(0, 200, (32, 64, 4), dtype=np.uint8)
        values.append(image)
        mask = (image[..., 0] > 100).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            path = tmp_path / "data" / kind / ("val" if number == 2 else "train") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    run(tmp_path / "data", make_config(TINY, {"model": {"in_channels": 4}}), tmp_path / "run")
    network, info = load_model(tmp_path / "run" / "best")
    pixels = np.concatenate([image.reshape(-1, 4) for image in values[:2]]) / 255  # h w 4 -> pixels 4
    assert info.mean == pytest.approx(pixels.mean(0).tolist(), rel=1e-6)
    assert info.std == pytest.approx(pixels.std(0).tolist(), rel=1e-6)
    assert network.settings["in_channels"] == 4


def test_given_normalisation_must_fit_the_channels(data, tmp_path):
    config = make_config(TINY, {"data": {"mean": (0.5,), "std": (0.2,)}})
    with pytest.raises(ConfigError, match="one number for each of the 3 channels"):
        train(data, config, out=tmp_path / "run", console=quiet())


def test_two_folders_without_a_class_list_or_a_validation_part(data, tmp_path):
    folders = {"images": data / "images" / "train", "masks": data / "masks" / "train", "holdout": 0.2}
    result, shown = run(None, make_config(TINY, {"data": folders}), tmp_path / "run", report=True)
    assert len(result.images) == 2
    assert "8 train, 2 val" in shown
    assert "no val split: 2 of 10 training images held out" in shown
    _, info = load_model(tmp_path / "run" / "best")
    assert info.classes.names == ("class 0", "class 1", "class 2", "class 3", "class 4")


def test_data_is_named_once(data, tmp_path):
    folders = make_config(TINY, {"data": {"images": data / "images", "masks": data / "masks"}})
    for given, config in ((None, tiny()), (data, folders)):
        with pytest.raises(ConfigError, match="either a data folder or both --images and --masks"):
            train(given, config, out=tmp_path / "run", console=quiet())


def test_a_part_without_images_is_named(data, tmp_path):
    dataset = open_dataset(data)
    only = DataSet(dataset.classes, {"train": dataset.splits["train"]})
    with pytest.raises(ConfigError, match="training needs a 'val' part; the data has train"):
        train(only, tiny(), out=tmp_path / "run", console=quiet())


def test_an_image_that_breaks_while_training_is_named(data, tmp_path, monkeypatch):
    """A file that was whole when checked: the run stops in one line, and what was saved stays."""
    write_sample(tmp_path / "data", train=2, val=1, test=1)
    dataset = open_dataset(tmp_path / "data")
    original = module.learning_rate

    def breaking(step: int, settings) -> float:
        if step == 2:
            for pair in dataset.splits["train"]:
                pair.image.write_bytes(pair.image.read_bytes()[:100])
        return original(step, settings)

    monkeypatch.setattr(module, "learning_rate", breaking)
    with pytest.raises(Exception, match=r"images/train/000\d\.png") as caught:
        train(dataset, tiny(steps=4), out=tmp_path / "run", console=quiet())
    assert type(caught.value).__name__ == "DataError"
    assert state(tmp_path / "run")["progress"]["step"] == 2


@pytest.mark.parametrize(("backbone", "stride", "rests"), [("hrnet_w18_small", 32, True), ("resnet10t", 8, False)])
@pytest.mark.parametrize("aux_weight", [0.4, 0.0])
def test_every_weight_that_moves_gets_a_gradient(backbone, stride, rests, aux_weight):
    """Or several processes wait for those that have none, and end with an error in the second step."""
    stages = (1, 2) if stride == 8 else (-2, -1)
    model = {"backbone": backbone, "output_stride": stride, "stages": stages}
    network = make_network(make_config(TINY, {"model": model, "train": {"aux_weight": aux_weight}}), 5)
    assert network.training
    outputs = network(torch.randn(2, 3, 64, 64), with_aux=True) if aux_weight else (network(torch.randn(2, 3, 64, 64)),)
    sum(output.square().mean() for output in outputs).backward()
    resting = {name for name, weight in network.named_parameters() if weight.grad is None}
    assert resting == {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert all(name.startswith("backbone.") for name in resting)
    assert bool(resting) == rests


def test_the_loss_falls(data, tmp_path):
    slow = {"log_every": 5, "save_every": 30, "validate_every": 30}
    settings = {"steps": 30, "optimizer": "adamw", "learning_rate": 0.003, **slow}
    config = make_config(TINY, {"train": settings, "data": {"scale": (1, 1), "photometric": False}})
    run(data, config, tmp_path / "run")
    losses = [entry["loss"] for entry in read_log(tmp_path / "run") if entry["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


def test_nothing_is_left_of_an_interrupted_write(data, tmp_path, monkeypatch):
    """Dies while `last/` is written for the second time: the first is whole and there is no half folder."""
    original = torch.save

    def dying(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        original(*arguments, **settings)

    calls: list[int] = []
    monkeypatch.setattr("asymseg.training.state.torch.save", dying)
    with pytest.raises(Killed):
        train(data, tiny(save_every=1), out=tmp_path / "run", console=quiet())
    assert not [path for path in (tmp_path / "run").iterdir() if ".part-" in path.name or "previous" in path.name]
    assert state(tmp_path / "run")["progress"]["step"] == 1


def test_synchronised_batchnorm_keeps_the_activations_of_the_backbone():
    config = make_config({"model": {"backbone": "mobilenetv2_050", "pretrained": False, "output_stride": 32}})
    network = make_network(config, 2).eval()
    images = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        before = network(images)
        after = synchronise_on_cuda(network).eval()(images)
    assert any(isinstance(part, torch.nn.SyncBatchNorm) for part in network.modules())
    torch.testing.assert_close(after, before)


def test_a_resumed_run_says_what_is_no_longer_as_it_began(data, tmp_path):
    run(data, tiny(steps=1), tmp_path / "run")
    _, text = run(data, tiny(steps=2), tmp_path / "run", resume=True)
    assert "changed from here on: train.steps: 1 -> 2" in text
    assert text.count("changed from here on") == 1


def test_resume_without_a_run_says_that_a_new_one_begins(data, tmp_path, monkeypatch):
    kill_before(0, monkeypatch)
    console = quiet()
    with pytest.raises(Killed):
        train(data, tiny(), out=tmp_path / "typo", resume=True, console=console)
    assert f"note: no run in {tmp_path / 'typo'} to go on with; a new one begins" in console.file.getvalue()


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED"])
def test_launchers_that_would_take_the_network_apart_are_refused(data, tmp_path, monkeypatch, way):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(ConfigError, match=rf"^accelerate is set up for {way}, .*--multi_gpu .*--train.shard true$"):
        train(data, tiny(), out=tmp_path / "run", console=quiet())
