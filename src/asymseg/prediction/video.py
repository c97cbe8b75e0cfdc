"""Predict videos frame by frame: memory does not grow with their length."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from asymseg.atomic import atomic_file
from asymseg.errors import AsymsegError, DataError
from asymseg.prediction.overlay import check_opacity
from asymseg.prediction.result import AnyPredictor, Result

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv")
"""Suffixes, in small letters, of the files that are taken for videos."""

_CODECS = {"h264": "libx264", "vp9": "libvpx-vp9"}
"""By family, whichever the kind of file takes first."""

_OPTIONS = {"libx264": {"crf": "18", "preset": "fast"}, "libvpx-vp9": {"crf": "24", "b": "0"}}
_MISSING = Fraction(1, 2)
"""Seconds by which a video may be shorter than its head says."""


@dataclass(frozen=True)
class VideoOutcome:
    """What was written, and in one line what of the video could not be read."""

    path: Path
    frames: int
    failure: str = ""


def is_video(source: Path) -> bool:
    """Whether the file's name is a video's."""
    return source.suffix.lower() in VIDEO_SUFFIXES and source.is_file()


def predict_video(predictor: AnyPredictor, source: str | Path) -> Iterator[Result]:
    """What a model says about each frame of a video, upright, from the first to the last.

    Raises DataError for what is no video; and for one that is damaged or cut short, after all frames that can be read.
    """
    source = Path(source)
    with _opened(source) as container:
        faults: list[str] = []
        for event in _events(container, None):
            if isinstance(event, str):
                faults.append(event)
            else:
                yield predictor(_upright(event))
    if faults:
        raise DataError(_one_line(source, faults))


def write_video(
    predictor: AnyPredictor,
    source: Path,
    out: Path,
    *,
    opacity: float = 0.5,
    masks: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoOutcome:
    """Write a video with the classes' colours over its frames, at the times of these, with its sound.

    Frames come out upright. Formats of video want an even height and width; a frame that has not is continued by its
    last row or column. With `masks` each frame's class ids also go to a palette PNG in that folder, numbered from 0.

    What can be read of a damaged video is written, and the outcome says what is missing. Raises DataError where nothing
    can be read or the video would overwrite itself, AsymsegError where PyAV is missing.
    """
    if out.resolve() == source.resolve():
        raise DataError(f"{out}: is the video itself; choose another -o")
    check_opacity(opacity)
    done, faults = 0, []
    with _opened(source) as container, atomic_file(out) as temporary:
        total = _frame_count(container)
        with _Writer(temporary, out, container) as writer:
            for event in _events(container, writer.sound):
                if isinstance(event, str):
                    faults.append(event)
                elif writer.is_sound(event):
                    writer.copy(event)
                else:
                    result = predictor(_upright(event), keep=False)
                    writer.write(np.asarray(result.overlay(opacity)), event)
                    if masks is not None:
                        result.save(masks / f"{done:06d}.png")
                    done += 1
                    if progress is not None:
                        progress(done, max(done, total))
        if not done:
            raise DataError(_one_line(source, faults or ["no frame can be read"]))
    return VideoOutcome(out, done, _one_line(source, faults) if faults else "")


class _Writer:
    """A video that is written like the one that is read: its times, its colours' meaning, its sound."""

    def __init__(self, temporary: Path, out: Path, like: Any) -> None:
        av = _import_av()
        video, sound = like.streams.video[0], like.streams.best("audio")
        try:
            self.container = av.open(str(temporary), "w")
        except (av.FFmpegError, ValueError):
            raise DataError(f"{out}: not a name of a video; give -o a file NAME.mp4, .mkv, .mov or .webm") from None
        known = self.container.supported_codecs
        codec = next((name for family, name in _CODECS.items() if family in known), self.container.default_video_codec)
        self.rate = video.average_rate or video.guessed_rate or Fraction(25)
        self.time_base = video.time_base or 1 / self.rate
        self.stream = self.container.add_stream(codec, rate=self.rate, options=_OPTIONS.get(codec, {}))
        self.stream.pix_fmt = "yuv420p"
        context, told = self.stream.codec_context, video.codec_context
        context.time_base = self.time_base
        context.colorspace, context.color_primaries = told.colorspace, told.color_primaries
        context.color_trc = told.color_trc
        self.sound = sound if sound is not None and sound.codec_context.name in known else None
        self.copied = self.container.add_stream_from_template(self.sound) if self.sound is not None else None
        self.early: list[Any] = []
        self.frames, self.last = 0, -1

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.frames:
            self.container.mux(self.stream.encode(None))
        self.container.close()

    def write(self, picture: UInt8[np.ndarray, "h w 3"], source: Any) -> None:
        """Add a picture at the time of the frame `source`."""
        av = _import_av()
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self.frames:
            self.stream.height, self.stream.width = picture.shape[:2]
            self.container.mux(self.early)
            self.early = []
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(
            width=self.stream.width, height=self.stream.height, format="yuv420p", dst_colorspace=source.colorspace
        )
        time = source.pts if source.pts is not None else round(self.frames / (self.rate * self.time_base))
        self.last = time if not self.frames else max(time, self.last + 1)  # behind damage times may go back
        frame.pts, frame.time_base = self.last, self.time_base
        self.container.mux(self.stream.encode(frame))
        self.frames += 1

    def is_sound(self, event: Any) -> bool:
        """Whether that is a packet of sound and no frame."""
        return getattr(event, "stream", None) is self.sound is not None

    def copy(self, packet: Any) -> None:
        """Add a packet of sound as it is; the first picture goes before it, since that tells the size."""
        packet.stream = self.copied
        if self.frames:
            self.container.mux(packet)
        else:
            self.early.append(packet)


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    """The open video. Raises DataError where it is none, AsymsegError where PyAV is missing."""
    av = _import_av()
    try:
        container = av.open(str(source), metadata_errors="replace")  # old cameras write titles in any alphabet
    except FileNotFoundError:
        raise DataError(f"{source}: no such file; check the path") from None
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{source}: not readable as a video ({_reason(error)}); copy it again") from None
    with container:
        if not container.streams.video:
            raise DataError(f"{source}: holds no video")
        container.streams.video[0].thread_type = "AUTO"
        yield container


def _import_av() -> Any:
    """PyAV, or an AsymsegError that says how to get it."""
    try:
        import av
    except ImportError:
        raise AsymsegError('videos need PyAV: pip install "asymseg[video]"') from None
    return av


def _events(container: Any, sound: Any) -> Iterator[Any]:
    """Frames, packets of `sound`, and in words what is wrong with the video, in the order of the file."""
    av = _import_av()
    video = container.streams.video[0]
    end, first = Fraction(0), None
    try:
        for packet in container.demux([video] if sound is None else [video, sound]):
            if packet.stream is sound:
                if packet.dts is not None:
                    yield packet
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                yield f"damaged after {float(end):.1f} s ({_reason(error)})"
                continue
            for frame in frames:
                if frame.pts is not None:
                    first = frame.pts if first is None else first
                    end = (frame.pts - first) * video.time_base
                yield frame
    except av.FFmpegError as error:
        yield f"damaged after {float(end):.1f} s ({_reason(error)})"
    length = _seconds(container)
    if length is not None and end + 1 / (video.average_rate or Fraction(25)) + _MISSING < length:
        yield f"ends after {float(end):.1f} of {float(length):.1f} s"


def _seconds(container: Any) -> Fraction | None:
    """How long the head of the file says the pictures last, where it does."""
    video = container.streams.video[0]
    if video.duration:
        return Fraction(video.duration * video.time_base)
    told = video.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = told.split(":")
        return Fraction(seconds) + 60 * int(minutes) + 3600 * int(hours)
    except ValueError:
        alone = len(container.streams) == 1 and container.duration
        return Fraction(container.duration, 1_000_000) if alone else None


def _upright(frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a frame as they are to be seen."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def _frame_count(container: Any) -> int:
    """About how many frames there are."""
    video, length = container.streams.video[0], _seconds(container)
    return int(video.frames or (length or 0) * (video.average_rate or 25))


def _one_line(source: Path, faults: list[str]) -> str:
    more = f", and {len(faults) - 1} faults more" if len(faults) > 1 else ""
    return f"{source}: {faults[0]}{more}; it may be cut short or damaged: copy it again"


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
