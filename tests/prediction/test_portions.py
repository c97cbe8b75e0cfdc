"""Memory that runs out: the same numbers in smaller portions, said once; or one line with the cure."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asymseg.classes import Classes
from asymseg.errors import ConfigError
from asymseg.model.info import ModelInfo
from asymseg.prediction import answer, upsampling
from asymseg.prediction.many.files import predict_files
from asymseg.prediction.portions import Portions, attempt
from asymseg.prediction.predict import Predictor

INFO = ModelInfo(Classes(("red", "green", "blue")), (0.0,) * 3, (1.0,) * 3)
SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 123 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


class Hungry(nn.Module):
    """A network for which there is memory for so many pixels at once."""

    def __init__(self, most: int, shortage: Exception = SHORTAGES[0]) -> None:
        super().__init__()
        self.most, self.shortage, self.refused = most, shortage, 0

    def forward(self, images):
        if images.shape[0] * images.shape[2] * images.shape[3] > self.most:
            self.refused += 1
            raise self.shortage
        return F.avg_pool2d(images, 4, ceil_mode=True)


def image(height: int = 30, width: int = 50) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shortage", SHORTAGES, ids=lambda error: type(error).__name__)
def test_fewer_windows_at_once_give_the_same(shortage):
    slide = {"mode": "slide", "window": (10, 10), "stride": (5, 5)}
    expected = Predictor(Hungry(10**9), INFO, "cpu").seeing(**slide).probabilities(image())
    predictor = Predictor(Hungry(250, shortage), INFO, "cpu").seeing(**slide)
    with pytest.warns(
        UserWarning, match="^memory ran out: fewer windows go through the network at once; the results s"
    ):
        assert torch.equal(predictor.probabilities(image()), expected)
    refused = predictor.network.refused
    assert refused == 2  # nine windows, then three, then one
    predictor.probabilities(image())  # a warning would be an error
    predictor.seeing(flip=True).class_map(image())
    assert predictor.network.refused == refused


def test_a_window_that_does_not_fit_names_the_cure():
    predictor = Predictor(Hungry(99), INFO, "cpu").seeing(mode="slide", window=(10, 10))
    with pytest.warns(UserWarning, match="fewer windows"), pytest.raises(ConfigError) as refused:
        predictor.class_map(image())
    assert str(refused.value) == "not even one window of 10x10 pixels fits into memory (cpu); use a smaller --window"
    with pytest.raises(ConfigError, match="an image seen at 10x10 pixels does not fit .* use a smaller --window$"):
        predictor.class_map(image(10, 10))


def test_a_whole_image_that_does_not_fit_names_the_cure():
    predictor = Predictor(Hungry(30 * 50), INFO, "cpu")
    predictor.class_map(image())
    with pytest.raises(ConfigError, match=r"an image seen at 60x100 pixels does not fit .* \(cpu\); use --mode slide$"):
        predictor.seeing(scales=(1.0, 2.0)).class_map(image())


@pytest.mark.parametrize("settings", [{}, {"mode": "slide", "window": (12, 20)}, {"flip": True, "average": "logits"}])
def test_fewer_rows_at_once_give_the_same(monkeypatch, settings):
    predictor = Predictor(Hungry(10**9), INFO, "cpu").seeing(**settings)
    expected, sure = predictor.class_map_and_confidence(image())
    shares = predictor.probabilities(image())
    columns, refused = upsampling._columns, []

    def narrow(x, width, align_corners):
        if x.shape[2] > 3:
            refused.append(x.shape)
            raise SHORTAGES[0]
        return columns(x, width, align_corners)

    monkeypatch.setattr(upsampling, "_columns", narrow)
    with pytest.warns(UserWarning, match="^memory ran out: fewer rows are classified at once; the results stay"):
        mask, confidence = predictor.class_map_and_confidence(image())
    assert torch.equal(mask, expected)
    torch.testing.assert_close(confidence, sure, rtol=0, atol=1e-6)
    assert refused
    refused.clear()
    torch.testing.assert_close(predictor.probabilities(image()), shares, rtol=0, atol=1e-6)
    assert not refused


def test_a_row_that_does_not_fit_names_the_cure(monkeypatch):
    def never(x, width, align_corners):
        raise SHORTAGES[1]

    predictor = Predictor(Hungry(10**9), INFO, "cpu")
    monkeypatch.setattr(upsampling, "_columns", never)
    cure = "^not even one row of 150 scores .* of 30x50 pixels .*--mode slide, or a smaller --window$"
    with pytest.warns(UserWarning, match="fewer rows"), pytest.raises(ConfigError, match=cure):
        predictor.class_map(image())


def test_views_can_wait_outside_the_device():
    """Where a view does not fit beside what was said of those before it."""
    network = Hungry(10**9)
    predictor = Predictor(network, INFO, "cpu").seeing(flip=True, scales=(1.0, 0.5))
    expected = predictor.probabilities(image())
    calls = []

    def second_fails(module, inputs):
        calls.append(inputs)
        if len(calls) == 2:
            raise SHORTAGES[0]

    network.register_forward_pre_hook(second_fails)
    predictor.portions.hosting = False
    with pytest.warns(UserWarning, match="what the network said of each view waits in the computer's own memory"):
        assert torch.equal(predictor.probabilities(image()), expected)
    assert len(calls) == 5
    assert predictor.portions.hosting


def test_probabilities_that_do_not_fit_name_the_cure(monkeypatch):
    predictor = Predictor(Hungry(10**9), INFO, "cpu")
    empty = torch.empty

    def small(*shape, **settings):
        if shape == (3, 30, 50):
            raise SHORTAGES[1]
        return empty(*shape, **settings)

    monkeypatch.setattr(answer.torch, "empty", small)
    with pytest.raises(
        ConfigError, match="^the probabilities of 3 classes at 30x50 pixels do not fit into memory; ask"
    ):
        predictor.probabilities(image())


def test_other_errors_are_bugs_and_go_through():
    predictor = Predictor(Hungry(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), INFO, "cpu")
    for mode in ("whole", "slide"):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            predictor.seeing(mode=mode, window=(4, 4)).class_map(image())


def test_what_a_failed_attempt_held_is_free_before_the_next():
    held = []

    class Map:
        def __init__(self):
            held.append(self)

        def __del__(self):
            freed.append(True)

    freed = []

    def work():
        map = Map()
        held.clear()
        if not freed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return map

    assert attempt(work) is None
    assert freed == [True]
    assert isinstance(attempt(work), Map)


def test_portions_come_out_even():
    portions = Portions(1000)
    assert [portions.windows(count, (10, 10)) for count in (1, 5, 10, 11, 25)] == [1, 5, 10, 6, 9]
    assert portions.windows(7, (100, 100)) == 1


def test_an_image_that_does_not_fit_is_named_and_the_rest_goes_on(tmp_path):
    from PIL import Image

    (tmp_path / "in").mkdir()
    for name, side in (("a", 10), ("b", 40), ("c", 12)):
        Image.fromarray(np.zeros((side, side, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{name}.png")
    outcome = predict_files(Predictor(Hungry(400), INFO, "cpu"), tmp_path / "in", tmp_path / "out", overlay=False)
    assert [path.name for path in outcome.written] == ["a.png", "c.png"]
    assert len(outcome.failures) == 1
    assert outcome.failures[0].startswith(str(tmp_path / "in" / "b.png"))
    assert outcome.failures[0].endswith("use --mode slide")
