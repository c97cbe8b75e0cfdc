"""Videos: every frame at its time, upright and unshifted, with its sound; damaged ones as far as they can be read."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from asymseg.classes import Classes
from asymseg.data.files import read_mask
from asymseg.errors import AsymsegError, ConfigError, DataError
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor
from asymseg.prediction.video import is_video, predict_video, write_video

av = pytest.importorskip("av")

CLASSES = Classes(("red", "green", "blue"), ((200, 10, 20), (30, 180, 40), (50, 60, 250)))
INFO = ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3)
TIMES = [*range(0, 30, 3), *range(40, 90, 5)]
"""In fiftieths of a second: 20 frames, of which no two rates are alike."""


class Colours(nn.Module):
    """The class of a pixel is its strongest colour."""

    def forward(self, images):
        return 10 * images


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(Colours(), INFO, "cpu")


def scene(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A red ground, a green square in the upper left corner that grows, a blue bar at the right edge.

    Edges lie between even places: one colour stands for four pixels.
    """
    grown = number // 2 * 2
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0] = 180
    picture[: 8 + grown, : 16 + grown] = (0, 200, 0)
    picture[:, (width - 10) // 2 * 2 :] = (20, 0, 220)
    return picture


def put(path: Path, *, size: tuple[int, int] = (48, 64), sound: bool = False, times: list[int] = TIMES) -> Path:
    """Write a video without loss of place: odd sizes need the pixel format that keeps every pixel's colour."""
    odd = any(side % 2 for side in size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "10"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 50)
        if sound:
            voice = container.add_stream("aac", rate=8000)
            tone = np.sin(np.arange(8192, dtype=np.float32) / 5)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(scene(number, *size), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 50)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound:
            container.mux(voice.encode(frame))
            container.mux(voice.encode(None))
    return path


def frames(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def classes_of(picture: np.ndarray) -> np.ndarray:
    return picture.argmax(2)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_each_frame_keeps_its_time_and_place(predictor, tmp_path, name):
    source = put(tmp_path / "in.mp4")
    told: list[tuple[int, int]] = []
    outcome = write_video(predictor, source, tmp_path / name, progress=lambda done, total: told.append((done, total)))
    assert (outcome.frames, outcome.failure) == (20, "")
    assert told == [(number, 20) for number in range(1, 21)]
    written = frames(tmp_path / name)
    tolerance = Fraction(1, 1000)  # Matroska counts in milliseconds
    assert all(abs(time - Fraction(wish, 50)) <= tolerance for (time, _), wish in zip(written, TIMES, strict=True))
    for number, (_, picture) in enumerate(written):
        assert picture.shape == (48, 64, 3)
        wish = scene(number).astype(int)
        wish = (wish + np.array(CLASSES.palette)[classes_of(wish)]) / 2
        assert np.median(abs(picture - wish)) <= 6
        assert (classes_of(picture) == classes_of(scene(number))).mean() > 0.97


def test_opacity(predictor, tmp_path):
    source = put(tmp_path / "in.mp4")
    write_video(predictor, source, tmp_path / "out.mp4", opacity=0.0)
    for (_, picture), (_, wish) in zip(frames(tmp_path / "out.mp4"), frames(source), strict=True):
        assert np.median(abs(picture.astype(int) - wish)) <= 3
    with pytest.raises(ConfigError, match="opacity = 2"):
        write_video(predictor, source, tmp_path / "out.mp4", opacity=2.0)


def test_an_odd_size_is_continued_and_not_shifted(predictor, tmp_path):
    source = put(tmp_path / "in.mp4", size=(47, 63))
    write_video(predictor, source, tmp_path / "out.mp4", masks=tmp_path / "masks")
    alike = dict.fromkeys([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)], 0)
    for number, (_, picture) in enumerate(frames(tmp_path / "out.mp4")):
        assert picture.shape == (48, 64, 3)
        expected = np.pad(classes_of(scene(number, 47, 63)), ((0, 1), (0, 1)), mode="edge")
        for shift in alike:
            alike[shift] += int((np.roll(classes_of(picture), shift, (0, 1)) == expected).sum())
    assert max(alike, key=lambda shift: alike[shift]) == (0, 0)
    assert alike[0, 0] > 0.99 * 20 * 48 * 64
    assert len(list((tmp_path / "masks").iterdir())) == 20
    mask = read_mask(tmp_path / "masks" / "000007.png", CLASSES).numpy()
    assert mask.shape == (47, 63)
    assert (mask == classes_of(scene(7, 47, 63))).mean() > 0.98


def test_sound_is_copied(predictor, tmp_path):
    source = put(tmp_path / "in.mp4", sound=True)
    write_video(predictor, source, tmp_path / "out.mp4")

    def sound(path: Path) -> list[tuple[Any, bytes]]:
        with av.open(str(path)) as container:
            return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]

    assert sound(tmp_path / "out.mp4") == sound(source) != []
    write_video(predictor, source, tmp_path / "silent.webm")  # which takes no AAC
    assert len(frames(tmp_path / "silent.webm")) == 20


def turn(path: Path) -> None:
    """Write into the head of an MP4 that its pictures are to be shown turned by a quarter."""
    content = path.read_bytes()
    fixed = [number.to_bytes(4, "big", signed=True) for number in (0, 65536, -65536, 1 << 30)]
    zero, one, minus, last = fixed
    plain = one + zero * 3 + one + zero * 3 + last
    place = content.rindex(plain)  # the first is that of the whole file
    turned = zero + one + zero + minus + zero * 4 + last
    path.write_bytes(content[:place] + turned + content[place + len(plain) :])


def test_a_turned_video_comes_out_upright(predictor, tmp_path):
    source = put(tmp_path / "in.mp4")
    turn(source)
    write_video(predictor, source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
    for number, (_, picture) in enumerate(frames(tmp_path / "out.mp4")):
        assert (classes_of(picture) == classes_of(np.rot90(scene(number), -1))).mean() > 0.97


def test_results_frame_by_frame(predictor, tmp_path):
    results = predict_video(predictor, str(put(tmp_path / "in.mp4")))
    first = next(results)
    assert first.mask.shape == (48, 64)
    assert first.overlay().size == (64, 48)
    assert first.probabilities.shape == (3, 48, 64)
    rest = list(results)
    assert len(rest) == 19
    assert (rest[-1].mask == classes_of(scene(19))).mean() > 0.98


@pytest.mark.parametrize("name", ["in.mkv", "in.ts"])
def test_of_a_video_that_is_cut_short_the_rest_is_kept(predictor, tmp_path, name):
    source = put(tmp_path / name, times=list(range(0, 500, 5)))
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    outcome = write_video(predictor, source, tmp_path / "out.mp4")
    assert 10 < outcome.frames < 90
    assert len(frames(tmp_path / "out.mp4")) == outcome.frames
    if name == "in.mkv":  # a transport stream does not say how long it is
        assert outcome.failure.startswith(f"{source}: ")
        assert "of 9.9 s" in outcome.failure
        assert "\n" not in outcome.failure
        with pytest.raises(DataError, match="of 9.9 s"):
            list(predict_video(predictor, source))


def test_a_damaged_middle_is_told_and_the_rest_goes_on(predictor, tmp_path):
    source = put(tmp_path / "in.mp4", times=list(range(0, 500, 5)))
    with av.open(str(source)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(source.read_bytes())
    for place, size in packets[40:60]:
        content[place : place + size] = bytes([255]) * size
    source.write_bytes(content)
    outcome = write_video(predictor, source, tmp_path / "out.mp4")
    assert 40 <= outcome.frames < 100
    assert "damaged after" in outcome.failure
    assert len(frames(tmp_path / "out.mp4")) == outcome.frames


def test_mistakes_are_named(predictor, tmp_path):
    source = put(tmp_path / "in.mp4")
    with pytest.raises(DataError, match="the video itself"):
        write_video(predictor, source, source)
    with pytest.raises(DataError, match="NAME.mp4"):
        write_video(predictor, source, tmp_path / "out.xyz")
    with pytest.raises(DataError, match="no such file"):
        write_video(predictor, tmp_path / "absent.mp4", tmp_path / "out.mp4")
    (tmp_path / "no.mp4").write_bytes(source.read_bytes()[:600])
    with pytest.raises(DataError, match="no.mp4: not readable"):
        write_video(predictor, tmp_path / "no.mp4", tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    assert is_video(source)
    assert not is_video(tmp_path)
    assert not is_video(tmp_path / "absent.mp4")


def test_without_pyav(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AsymsegError, match=r'pip install "asymseg\[video\]"'):
        write_video(predictor, tmp_path / "in.mp4", tmp_path / "out.mp4")


def test_a_title_in_another_alphabet(predictor, tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as film:
        film.metadata["title"] = "zzzz"
        stream = film.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), format="rgb24")))
        film.mux(stream.encode())
    content = path.read_bytes()
    assert content.count(b"zzzz") == 1
    path.write_bytes(content.replace(b"zzzz", "мир".encode("cp1251") + b"\xff"))
    assert len(list(predict_video(predictor, path))) == 1
