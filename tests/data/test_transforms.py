"""Augmentation: image and mask stay together, sizes are exact, padding counts nowhere, and a seed decides all."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as torchvision

from asymseg.classes import IGNORE
from asymseg.config import DataConfig
from asymseg.data.transforms import (
    Window,
    augment,
    colour_matrix,
    distort_colours,
    normalise,
    place,
    random_size,
    random_window,
    recolour,
    resize_image,
    resize_mask,
)
from asymseg.errors import ConfigError

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def blocks(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image that says its mask: class number n is the grey value 50 n, in blocks of 16 pixels."""
    rows, columns = torch.meshgrid(torch.arange(height) // 16, torch.arange(width) // 16, indexing="ij")
    mask = ((rows * 3 + columns * 5) % 4).to(torch.uint8)
    return (mask * 50).expand(3, -1, -1).clone(), mask


@pytest.mark.parametrize("size", [(64, 64), (40, 96), (200, 300)])
@pytest.mark.parametrize("seed", range(4))
def test_image_and_mask_stay_together(size, seed):
    image, mask = blocks(120, 170)
    settings = DataConfig(crop_size=size, photometric=False)
    seen, labels = augment(image, mask, settings, ZERO, ONE, generator(seed))
    assert seen.shape == (3, *size)
    assert labels.shape == size
    assert labels.dtype == torch.uint8
    inside = labels != IGNORE
    assert inside.any()
    told = (seen[0] * 255 / 50).round()
    agree = (told == labels)[inside].float().mean()
    assert agree > 0.85  # all but the seams between blocks
    # Away from the seams every pixel agrees: where 5 x 5 labels are one, the image says that label.
    near = labels[None, None].float()
    flat = F.max_pool2d(near, 5, 1, 2)[0, 0] == -F.max_pool2d(-near, 5, 1, 2)[0, 0]
    assert (flat & inside).any()
    assert torch.equal(told[flat & inside], labels[flat & inside].float())


def test_a_seed_decides_all():
    image, mask = blocks(100, 100)
    settings = DataConfig(crop_size=(48, 48))
    one = augment(image, mask, settings, ZERO, ONE, generator(7))
    torch.manual_seed(0)
    two = augment(image, mask, settings, ZERO, ONE, generator(7))
    other = augment(image, mask, settings, ZERO, ONE, generator(8))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_the_inputs_are_left_alone():
    image, mask = blocks(64, 64)
    before = image.clone(), mask.clone()
    for seed in range(4):
        augment(image, mask, DataConfig(crop_size=(64, 64)), ZERO, ONE, generator(seed))
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


def test_padding_counts_nowhere():
    image, mask = blocks(20, 30)
    settings = DataConfig(crop_size=(50, 60), scale=(1, 1), aspect=(1, 1), photometric=False, flip=0)
    seen, labels = augment(image, mask, settings, (0.5,) * 3, (0.25,) * 3, generator(0))
    assert torch.equal(labels[:20, :30], mask)
    assert torch.allclose(seen[:, :20, :30], (image / 255 - 0.5) / 0.25)
    assert (labels[20:] == IGNORE).all()
    assert (labels[:, 30:] == IGNORE).all()
    assert seen[:, 20:].abs().max() == 0  # the mean colour, after normalisation
    assert seen[:, :, 30:].abs().max() == 0


def test_place_by_hand():
    out = torch.full((1, 2, 3), 9.0), torch.full((2, 3), 9, dtype=torch.uint8)
    place(torch.ones(1, 1, 2), torch.ones(1, 2, dtype=torch.uint8), (0.5,), (0.25,), out)
    assert out[0].tolist() == [[[2, 2, 0], [0, 0, 0]]]
    assert out[1].tolist() == [[1, 1, 255], [255, 255, 255]]


@pytest.mark.parametrize("size", [(40, 50), (200, 300)])
@pytest.mark.parametrize("photometric", [False, True])
def test_a_given_place_is_filled_wholly_and_alike(size, photometric):
    image, mask = blocks(90, 110)
    settings = DataConfig(crop_size=size, photometric=photometric)
    fresh = augment(image, mask, settings, (0.4,) * 3, (0.2,) * 3, generator(2))
    given = torch.full((3, *size), torch.nan), torch.full(size, 7, dtype=torch.uint8)
    assert augment(image, mask, settings, (0.4,) * 3, (0.2,) * 3, generator(2), given) is given
    assert torch.equal(given[0], fresh[0])
    assert torch.equal(given[1], fresh[1])


def test_flip_turns_both():
    image, mask = blocks(64, 64)
    fixed = {"crop_size": (64, 64), "scale": (1, 1), "aspect": (1, 1), "photometric": False}
    seen, labels = augment(image, mask, DataConfig(**fixed, flip=1), ZERO, ONE, generator(0))
    assert torch.equal(labels, mask.flip(1))
    assert torch.allclose(seen, image.flip(2) / 255)
    assert not torch.equal(mask, mask.flip(1))


def test_sizes_follow_scale_and_aspect():
    def size(height: int, width: int, seed: int = 0, **settings: object) -> tuple[int, int]:
        chosen = DataConfig(**{"scale": (1, 1), "aspect": (1, 1), **settings})
        return random_size((height, width), chosen, generator(seed))

    assert size(100, 200, scale=(0.5, 0.5)) == (50, 100)
    assert size(100, 200, aspect=(4.0, 4.0)) == (50, 400)
    assert size(1, 1, scale=(0.01, 0.01)) == (1, 1)
    assert size(100, 200, short_side=50) == (50, 100)
    assert size(300, 150, short_side=50, scale=(2.0, 2.0)) == (200, 100)
    sizes = np.array([size(1000, 1000, n, scale=(0.5, 2.0), aspect=(0.9, 1.1)) for n in range(200)])
    areas, ratios = np.sqrt(sizes.prod(axis=1)) / 1000, sizes[:, 1] / sizes[:, 0]
    assert 0.49 < areas.min() < 0.6
    assert 1.9 < areas.max() < 2.01
    assert 0.89 < ratios.min() < 0.92
    assert 1.08 < ratios.max() < 1.11


def test_the_window_avoids_one_class_alone():
    mask = torch.zeros(100, 100, dtype=torch.uint8)
    mask[:, 40:60] = 1
    for seed in range(20):
        window = random_window(mask, (100, 100), (30, 30), 0.75, generator(seed))
        share = (window.of(mask) == 0).float().mean()
        assert share < 0.75, window
    shares = [
        (random_window(mask, (100, 100), (30, 30), 1.0, generator(seed)).of(mask) == 0).float().mean()
        for seed in range(20)
    ]
    assert max(shares) == 1  # turned off


def test_ignored_pixels_have_no_share():
    mask = torch.full((40, 100), IGNORE, dtype=torch.uint8)
    mask[0, ::2], mask[1, ::2] = 0, 1  # half and half of what is labelled, in the first rows alone
    window = random_window(mask, (40, 100), (40, 20), 0.75, generator(0))
    first = random_window(mask, (40, 100), (40, 20), 1.0, generator(0))
    assert window == first  # the first draw was good, though 97 % of it is ignored


def test_a_hopeless_mask_ends_after_ten_draws():
    mask = torch.zeros(50, 50, dtype=torch.uint8)
    assert random_window(mask, (50, 50), (20, 20), 0.5, generator(0)).height == 20
    empty = torch.full((50, 50), IGNORE, dtype=torch.uint8)
    assert random_window(empty, (50, 50), (50, 20), 0.5, generator(0)).height == 50


@pytest.mark.parametrize("whole", [(100, 150), (37, 53), (1, 1)])
@pytest.mark.parametrize("size", [(50, 60), (100, 150), (431, 289)])
def test_a_window_covers_its_share_and_lies_inside(whole, size):
    mask = torch.arange(whole[0] * whole[1]).reshape(whole).remainder(3).to(torch.uint8)
    target = 40, 60
    seen = set()
    for seed in range(50):
        window = random_window(mask, size, target, 1.0, generator(seed))
        assert window.of(mask).shape == (window.height, window.width)
        for axis, length in enumerate((window.height, window.width)):
            assert length >= 1
            assert abs(length - whole[axis] * target[axis] / size[axis]) <= 1
        seen |= {("top", window.top), ("bottom", window.top + window.height)}
    assert ("top", 0) in seen or whole[0] > 50
    assert all(place <= whole[0] for _, place in seen)


def test_every_window_can_be_drawn():
    mask = torch.zeros(4, 5, dtype=torch.uint8)
    seen = {random_window(mask, (4, 5), (2, 2), 1.0, generator(seed))[:2] for seed in range(300)}
    assert seen == {(top, left) for top in range(3) for left in range(4)}


@pytest.mark.parametrize("size", [(60, 85), (77, 203), (240, 300), (120, 170), (9, 2), (1, 9)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_resizing_equals_other_libraries(size, channels):
    image = torch.from_numpy(generator(0).integers(0, 256, (channels, 120, 170), dtype=np.uint8))
    expected = torch.stack(
        [
            torch.from_numpy(np.array(Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)))
            for plane in image
        ]
    )
    resized = resize_image(image, size)
    assert resized.dtype == torch.uint8
    assert (resized.int() - expected.int()).abs().max() <= 1
    part = Window(7, 11, 60, 90)
    lone = resize_image(part.of(image), size)
    assert torch.equal(lone, resize_image(part.of(image).clone(), size))
    floats = image.float() / 255
    whole = torchvision.resize_image(floats, list(size), antialias=True)
    assert torch.allclose(resize_image(floats, size), whole, atol=1e-5)
    mask = image[0]
    nearest = F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]
    assert torch.equal(resize_mask(mask, size), nearest)


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_to_one_column(channels):
    rows = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 24, 1).expand(channels, 24, 7)
    assert resize_image(rows, (24, 1)).flatten().tolist() == list(range(0, 240, 10)) * channels
    assert resize_image(rows, (12, 1))[-1, :, 0].tolist() == list(range(5, 245, 20))
    assert torch.allclose(resize_image(rows.float(), (1, 1)), torch.tensor(115.0))


def test_resizing_leaves_the_same_size_alone():
    image, mask = blocks(30, 40)
    assert torch.equal(resize_image(image, (30, 40)), image)
    assert torch.equal(resize_mask(mask, (30, 40)), mask)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_change_and_stay_in_range(channels):
    image = torch.from_numpy(generator(1).integers(0, 256, (channels, 12, 14), dtype=np.uint8))
    results = [distort_colours(image, generator(seed)) for seed in range(16)]
    assert all(result.dtype == torch.float32 and result.shape == image.shape for result in results)
    assert all(result.min() >= 0 and result.max() <= 1 for result in results)
    changed = [not torch.allclose(result, image / 255, atol=1e-4) for result in results]
    assert 8 <= sum(changed) <= 16


def test_brightness_and_contrast_by_hand():
    image = torch.full((1, 2, 2), 0.5)
    seen = set()
    for seed in range(40):
        rng = generator(seed)
        brighter, stronger = (rng.random(4) < 0.5)[:2]
        brightness, contrast = rng.uniform(-32 / 255, 32 / 255), rng.uniform(0.5, 1.5)
        expected = (0.5 + (brightness if brighter else 0)) * (contrast if stronger else 1)
        assert distort_colours(image, generator(seed))[0, 0, 0] == pytest.approx(expected, abs=1e-6)
        seen.add((bool(brighter), bool(stronger)))
    assert len(seen) == 4


def test_saturation_equals_torchvision():
    image = 0.3 + 0.4 * torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    for saturation in (0.5, 0.9, 1.4):
        matrix = torch.from_numpy(colour_matrix(saturation, 0.0)).float()
        own = torch.einsum("ck,khw->chw", matrix, image)
        assert torch.allclose(own, torchvision.adjust_saturation_image(image, saturation), atol=2e-4)


def test_hue_turns_as_in_hsv_and_leaves_brightness_and_greys_alone():
    rng = generator(0)
    pixels = rng.uniform(0.3, 0.7, (500, 3))
    for hue in (-0.1, -0.04, 0.07, 0.1):
        matrix = colour_matrix(1.0, hue)
        turned = pixels @ matrix.T
        before = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in pixels])
        after = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in turned])
        assert np.abs((after - before + 0.5) % 1 - 0.5 - hue).max() < 0.05
        luma = np.array([0.299, 0.587, 0.114])
        assert np.allclose(turned @ luma, pixels @ luma, atol=1e-6)
        assert np.allclose(matrix @ np.full(3, 0.4), 0.4, atol=1e-6)
    assert np.allclose(colour_matrix(1.0, 0.0), np.eye(3), atol=1e-12)
    assert np.allclose(colour_matrix(1.0, 0.05) @ colour_matrix(1.0, -0.05), np.eye(3), atol=1e-12)


def test_all_colours_at_once_are_the_steps_one_by_one():
    image = 0.35 + 0.1 * torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0))  # nothing leaves the scale
    for seed in range(30):
        rng = generator(seed)
        brighter, stronger, fuller, turned = rng.random(4) < 0.5
        brightness, contrast = rng.uniform(-32 / 255, 32 / 255), rng.uniform(0.5, 1.5)
        saturation, hue = rng.uniform(0.5, 1.5), rng.uniform(-0.1, 0.1)
        steps = image.double().numpy()
        steps = steps + brightness if brighter else steps
        steps = steps * contrast if stronger else steps
        steps = np.einsum("ck,khw->chw", colour_matrix(saturation, 0.0), steps) if fuller else steps
        steps = np.einsum("ck,khw->chw", colour_matrix(1.0, hue), steps) if turned else steps
        assert np.allclose(distort_colours(image, generator(seed)), steps.clip(0, 1), atol=1e-6)


def test_floats_beyond_the_scale_are_not_cut_more_than_they_were():
    image = torch.tensor([[[-1.0, 3.0, 0.5]]])
    for seed in range(10):
        result = distort_colours(image, generator(seed))
        assert result.min() >= -1
        assert result.max() <= 3
    untouched = next(seed for seed in range(50) if not (generator(seed).random(4) < 0.5)[:2].any())
    assert torch.equal(distort_colours(image, generator(untouched)), image)


def test_normalise_by_hand():
    image = torch.tensor([[[0, 255]], [[51, 102]]], dtype=torch.uint8)
    result = normalise(image, (0.5, 0.2), (0.5, 0.1))
    assert torch.allclose(result, torch.tensor([[[-1.0, 1.0]], [[0.0, 2.0]]]), atol=1e-6)
    assert torch.allclose(normalise(image / 255, (0.5, 0.2), (0.5, 0.1)), result)
    with pytest.raises(ConfigError, match=r"data\.mean and data\.std have 3 and 3 numbers, the images 2 channels"):
        normalise(image, ZERO, ONE)


def test_five_channels_of_floats():
    image, mask = torch.rand(5, 40, 40), blocks(40, 40)[1]
    seen, labels = augment(image, mask, DataConfig(crop_size=(32, 48)), (0.5,) * 5, (0.2,) * 5, generator(3))
    assert seen.shape == (5, 32, 48)
    assert labels.shape == (32, 48)
    assert torch.isfinite(seen).all()


def test_brightness_alone():
    """The authors': one whole number for all pixels and channels, cut off at the ends of the scale."""
    settings = DataConfig(photometric=False, brightness=10)
    image = torch.tensor([0, 4, 100, 251, 255], dtype=torch.uint8).expand(3, 2, 5).contiguous()
    shifts = set()
    for seed in range(200):
        result = recolour(image, settings, generator(seed))
        shift = int(result[0, 0, 2]) - 100
        shifts.add(shift)
        assert torch.equal(result, (image.int() + shift).clamp(0, 255).to(torch.uint8))
        scaled = recolour(image / 255, settings, generator(seed))
        assert torch.allclose(scaled, result / 255, atol=1e-6)
    assert shifts == set(range(-10, 11))
    assert recolour(image, DataConfig(photometric=False), generator(0)) is image
