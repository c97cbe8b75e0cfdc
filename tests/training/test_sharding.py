"""Two processes that share a network out: the run of two that keep it whole, in about half the memory."""

import json
import os
import shutil
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing
from accelerate import Accelerator
from tiny_processes import join, meeting, shown, train_together
from tiny_runs import TINY, at_step, equal, state, timeless
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import asymseg.training.train as training
from asymseg.config import Config, make_config
from asymseg.data.sample import write_sample
from asymseg.errors import ConfigError, TrainingError
from asymseg.evaluation.evaluate import evaluate
from asymseg.model.annnet import ANNNet
from asymseg.training import plan
from asymseg.training.log import read_log
from asymseg.training.optimizer import freeze_batchnorm
from asymseg.training.run import Run
from asymseg.training.sharding import kept_like, load_network, own_part, place, whole_network, whole_state

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, so that torch is not loaded once more"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


def settings(**train_settings) -> Config:
    """Small steps, for large ones make more and more of what is rounded otherwise. Dropout would know processes."""
    train = {
        "steps": 4, "batch_size": 4, "accumulation": 2, "clip_norm": 2.5, "ema": 0.5, "learning_rate": 1e-3,
        "log_every": 1, "validate_every": 2, "save_every": 2, "shard": True,
    }  # fmt: skip
    return make_config(TINY, {"model": {"dropout": 0.0}, "train": {**train, **train_settings}})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=9, val=3, test=1)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run of two processes that keep the network whole."""
    return finished(data, settings(shard=False), tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def shared(data, tmp_path_factory) -> Path:
    """The same, shared out."""
    return finished(data, settings(), tmp_path_factory.mktemp("runs") / "shared")


def finished(data: Path, config: Config, out: Path) -> Path:
    assert train_together(2, data, config, out, {rank: partial(noting, out, rank) for rank in range(2)}) == [0, 0]
    return out


def noting(out: Path, rank: int, patch: pytest.MonkeyPatch) -> None:
    """Note the bytes of weights, momenta and moving average when they are saved, and the norms of gradients.

    The second process builds another network than the first one, whose is to be taken.
    """

    def saved(folder: Path, run: Run, *arguments) -> None:
        momenta = [value for values in run.optimizer.state.values() for value in values.values()]
        kept = (run.network.parameters(), momenta, run.average.module.parameters())
        sizes = [sum(own_part(tensor).untyped_storage().nbytes() for tensor in tensors) for tensors in kept]
        Path(f"{out}.{rank}.json").write_text(json.dumps({"bytes": sizes, "norms": norms}))
        save(folder, run, *arguments)

    def clipped(self: Accelerator, parameters, most: float) -> None:
        norm = clip(self, parameters, most)
        norms.append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))

    def made(*arguments) -> torch.nn.Module:
        network = make(*arguments)
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(rank)
        return network

    norms: list[float] = []
    save, clip, make = training.save_last, Accelerator.clip_grad_norm_, plan.make_network
    patch.setattr(training, "save_last", saved)
    patch.setattr(Accelerator, "clip_grad_norm_", clipped)
    patch.setattr(plan, "make_network", made)


def noted(out: Path, rank: int, what: str) -> list[float]:
    return json.loads(Path(f"{out}.{rank}.json").read_text())[what]


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(out) if entry["kind"] == "train"]


def alike(one: Any, two: Any) -> bool:
    """Whether states have the same form, and their tensors the same numbers but for rounding.

    A bias before a BatchNorm has a gradient of rounding alone.
    """
    if isinstance(one, torch.Tensor):
        most = 5e-3 * one.double().norm() + 1e-6
        return one.shape == two.shape and one.dtype == two.dtype and bool((one.double() - two.double()).norm() <= most)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(alike, one, two))
    return one == two or one == pytest.approx(two, rel=1e-5)


def test_the_run_is_that_of_processes_that_keep_the_network_whole(whole, shared):
    assert len(losses(shared)) == 4
    np.testing.assert_allclose(losses(shared), losses(whole), rtol=1e-5)
    norms = noted(whole, 0, "norms")
    assert min(norms) < settings().train.clip_norm < max(norms)  # or neither clipping nor a factor could be seen
    for rank in range(2):
        np.testing.assert_allclose(noted(shared, rank, "norms"), norms, rtol=1e-4)
    assert alike(state(whole), state(shared))


def test_each_process_keeps_half(whole, shared):
    for rank in range(2):
        for part, all_of_it in zip(noted(shared, rank, "bytes"), noted(whole, rank, "bytes"), strict=True):
            assert all_of_it / 2 <= part + 200  # bytes; rows that are odd in number leave the second one a little less
            assert part < all_of_it * 0.51


def test_what_is_saved_is_what_was_measured(data, shared):
    (*_, validated) = [entry for entry in read_log(shared) if entry["kind"] == "validation"]
    seen = evaluate(shared / "last", data, boundary=False, calibration=False, replicates=0, workers=0).scores
    assert validated["miou"] == seen.miou
    assert validated["pixel_accuracy"] == seen.pixel_accuracy > 0


def test_a_run_that_was_stopped_goes_on_in_shares_and_without(data, shared, tmp_path):
    def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
        at_step(step - 1, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)

    out, mixed = tmp_path / "run", tmp_path / "mixed"
    assert train_together(2, data, settings(), out, {1: partial(stop_after, 1)}) == [143, 143]
    assert state(out)["progress"]["step"] == 1
    shutil.copytree(out, mixed)
    assert train_together(2, data, settings(), out) == [0, 0]
    assert equal(state(shared), state(out))
    assert timeless(shared) == timeless(out)

    assert train_together(1, data, settings(shard=False), mixed, {0: partial(stop_after, 2)}) == [143]
    assert train_together(2, data, settings(), mixed) == [0, 0]
    np.testing.assert_allclose(losses(mixed), losses(shared), rtol=1e-5)
    assert alike(state(shared), state(mixed))


def test_weights_that_are_not_finite_in_one_share_are_known_to_all(data, tmp_path):
    def spoil(rank: int, patch: pytest.MonkeyPatch) -> None:
        def spoiled(run: Run) -> None:
            if rank:
                own_part(next(run.network.parameters())).detach()[-1] = torch.nan
            try:
                check(run)
            except TrainingError:
                (tmp_path / f"{rank} knows").touch()
                raise

        check = training.finite_weights_or_stop
        patch.setattr(training, "finite_weights_or_stop", spoiled)

    ends = train_together(2, data, settings(steps=1), tmp_path / "run", {rank: partial(spoil, rank) for rank in (0, 1)})
    assert ends == [2, 2]
    for rank in range(2):
        assert "step 1 made weights that are not finite" in shown(tmp_path / "run", rank)
        assert (tmp_path / f"{rank} knows").exists()
    assert not (tmp_path / "run" / "last").exists()


def test_one_process_keeps_all(data, tmp_path):
    config = settings(steps=2, save_every=2, validate_every=2)
    assert train_together(1, data, config, tmp_path / "shared") == [0]
    assert train_together(1, data, make_config(config.model_dump(), {"train": {"shard": False}}), tmp_path / "not") == [
        0
    ]
    assert equal(state(tmp_path / "shared"), state(tmp_path / "not"))


def test_a_loss_scale_is_refused():
    with pytest.raises(ConfigError, match=r"^train.shard = true goes with .*not with fp16; use bf16$"):
        plan.make_accelerator(settings(precision="fp16").train)


def test_what_is_loaded_keeps_the_order_in_memory():
    like = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    whole = torch.rand(2, 3, 4, 5)
    kept = kept_like(whole, like)
    assert torch.equal(kept, whole)
    assert kept.stride() == like.stride() != whole.stride()


STEPS: list[tuple[str, int, int, dict[str, Any]]] = [
    (
        "resnet10t",
        8,
        4,
        {"checkpoint_backbone": True, "precision": "bf16", "freeze_batchnorm": True, "accumulation": 2},
    ),
    ("resnet10t", 8, 4, {"backbone_factor": 0.0, "optimizer": "adamw", "ema": 0.9, "sync_batchnorm": False}),
    ("test_efficientnet", 16, 6, {"checkpoint_backbone": True, "momentum": 0.0}),
    ("xcit_nano_12_p16_224", 16, 4, {}),
]
"""Backbone, its stride and the parts in which its weights are gathered, and settings."""


def test_steps_are_those_of_the_whole_network_whatever_the_settings():
    with meeting(2) as names:
        torch.multiprocessing.start_processes(compare_steps, (names,), nprocs=2, start_method="fork")


def compare_steps(rank: int, names: dict[str, str]) -> None:
    join(names, rank)
    for known in ("FSDP2-wrapped module .FSDP(ANNNet|TimmBackbone)", "Grad strides do not match bucket view"):
        warnings.filterwarnings("ignore", known)
    for backbone, stride, parts, train_settings in STEPS:
        stages = (-2, -1) if backbone == "test_efficientnet" else (1, 2)
        model = {"backbone": backbone, "output_stride": stride, "dropout": 0.0, "stages": stages}
        # One order in memory for both, so that the same kernels compute them.
        layer = {"model": model, "train": {**train_settings, "channels_last": False}}
        whole, _ = two_steps(make_config(TINY, layer), rank)
        layer["train"]["shard"] = True
        config = make_config(TINY, layer)
        shared, network = two_steps(config, rank)
        # The second process has statistics of its own where BatchNorm is not synchronised; the first one's are saved.
        assert rank or alike(whole, shared), (backbone, train_settings)
        assert sum(isinstance(part, FSDPModule) for part in network.backbone.modules()) == parts, backbone
    saved = whole["network"]
    one_class = {name: value[:1] if name.startswith("classifier") else value for name, value in saved.items()}
    with pytest.raises(RuntimeError, match=r"a tensor of \(1,.*for one of \(5,"):
        load_network(network, one_class)
    network = plan.make_network(config, 5)
    network.backbone.register_parameter("gain", torch.nn.Parameter(torch.ones(())))
    with pytest.raises(ConfigError, match=r"^model.backbone = 'xcit_nano_12_p16_224' has .*leave train.shard out"):
        place(network, config, plan.make_accelerator(config.train))


def two_steps(config: Config, rank: int) -> tuple[dict[str, Any], ANNNet]:
    """All that has moved, whole; and the network as it is kept."""
    settings = config.train
    accelerator = plan.make_accelerator(settings)
    torch.manual_seed(0)
    network = plan.make_network(config, 5)
    run = place(network, config, accelerator)
    generator = torch.Generator().manual_seed(rank)
    found = []
    for _ in range(2 * settings.accumulation):
        run.model.train()
        if settings.freeze_batchnorm or settings.backbone_factor == 0:
            freeze_batchnorm(network.backbone)
        with accelerator.accumulate(run.model):
            outputs = run.model(torch.randn(2, 3, 64, 64, generator=generator), with_aux=True)
            accelerator.backward(sum(output.square().mean() for output in outputs))
            run.optimizer.step()
            run.optimizer.zero_grad()
        if run.average is not None:
            run.average.update(network)
        found.append([output.detach() for output in outputs])
    plain = whole_network(run.evaluated, run.outline)
    moved = {"network": network.state_dict(), "optimizer": run.optimizer.state_dict()}
    return {"found": found, "plain": plain.state_dict(), **whole_state(moved, kept=True)}, network
