"""The sample scenes: discs that look alike, and a beacon that alone tells what they are."""

import numpy as np
import pytest
import torch

from asymseg.data.dataset import check_pairs, open_dataset
from asymseg.data.files import read_image, read_mask
from asymseg.data.sample import SAMPLE_CLASSES, make_scene, write_sample
from asymseg.errors import DataError


def test_a_scene_is_a_function_of_its_number():
    image, mask = make_scene(5)
    again = make_scene(5)
    assert image.shape == (96, 192, 3)
    assert image.dtype == mask.dtype == np.uint8
    assert np.array_equal(image, again[0])
    assert np.array_equal(mask, again[1])
    assert not np.array_equal(image, make_scene(6)[0])


def test_the_beacon_decides_and_the_discs_look_alike():
    seen = set()
    for number in range(30):
        image, mask = make_scene(number)
        beacon, ground = mask == 1, mask == 0
        assert beacon.sum() == 144
        colour = int(image[beacon].mean(axis=0).argmax())
        discs = (mask > 1).sum()
        assert set(np.unique(mask[mask > 1])) == {2 + colour}
        assert len(np.unique(image[mask > 1])) == 1  # one grey, the same in all scenes and channels
        seen.add((colour, int(image[mask > 1][0, 0])))
        assert 6 * 113 <= discs <= 6 * 317  # pixels of six discs of radius 6 to 10 that do not overlap
        assert image[ground].std() > 10
    assert {colour for colour, _ in seen} == {0, 1, 2}
    assert len({grey for _, grey in seen}) == 1


def test_scenes_of_other_sizes():
    image, mask = make_scene(0, height=120, width=100)
    assert image.shape == (120, 100, 3)
    assert mask.shape == (120, 100)
    with pytest.raises(ValueError, match="no room for 6 discs"):
        make_scene(0, height=20, width=30)


def test_the_written_sample_is_a_data_set(tmp_path):
    write_sample(tmp_path / "new" / "data", train=3, val=2, test=1)
    dataset = open_dataset(tmp_path / "new" / "data")
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert dataset.classes == SAMPLE_CLASSES
    assert dataset.classes.declared_palette
    assert dataset.notes == ()
    assert check_pairs(dataset.splits["train"], dataset.classes, 3, 1).sum() == 3 * 96 * 192
    image, mask = make_scene(1)
    pair = dataset.splits["train"][1]
    assert torch.equal(read_image(pair.image), torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(read_mask(pair.mask, dataset.classes), torch.from_numpy(mask))
    contents = {pair.image.read_bytes() for pairs in dataset.splits.values() for pair in pairs}
    assert len(contents) == 6  # no scene is in two splits


def test_a_part_of_no_scenes_is_not_there(tmp_path):
    write_sample(tmp_path / "data", train=2, val=1, test=0)
    assert list(open_dataset(tmp_path / "data").splits) == ["train", "val"]


def test_fewer_scenes_than_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="2, -1 and 0 scenes to train, val and test; give 0 or more of each"):
        write_sample(tmp_path / "data", train=2, val=-1, test=0)
    assert not (tmp_path / "data").exists()


def test_a_used_folder_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    write_sample(tmp_path / "data", train=1, val=1, test=0)
    with pytest.raises(DataError, match=r"data: already there and not an empty folder; choose another name"):
        write_sample(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="already there"):
        write_sample(tmp_path / "file")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "file"]


def test_a_failed_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("asymseg.data.sample.write_mask", fail)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
