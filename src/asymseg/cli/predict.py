"""Predict images."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from asymseg.cli.rasters import predict_one_raster
from asymseg.cli.terminal import (
    PARTLY_FAILED,
    make_console,
    progress_bar,
    say_compile_time,
    say_failure,
    warnings_in_a_line,
)
from asymseg.cli.videos import predict_one_video
from asymseg.errors import ConfigError


def predict(
    model: str,
    inputs: Annotated[list[str], Parameter(negative=())],
    *,
    out: Annotated[str, Parameter(name=["--out", "-o"])],
    overlay: bool = True,
    probabilities: bool = False,
    mode: Literal["whole", "slide"] | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    weighting: Literal["flat", "tapered"] | None = None,
    scales: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None,
    flip: bool | None = None,
    average: Literal["probabilities", "logits", "mixed"] | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
    fold: bool = True,
    tile: int = 1024,
    overlap: int | None = None,
    context: Literal["tile", "image"] = "tile",
    bands: list[int] | None = None,
    polygons: Path | None = None,
    opacity: float = 0.5,
    masks: Path | None = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
) -> None:
    """Predict images, folders of images or globs; writes palette PNGs of class ids and pictures to look at.

    Images may also be those of a list, a file NAME.txt with a path in each line, given by itself. Several inputs keep
    their places below the folder that they share, so that a/1.jpg and b/1.jpg become OUT/a/1.png and OUT/b/1.png; what
    holds no image among them is passed over. Where images and results lie may be addresses of stores, such as
    s3://bucket/photos, for which fsspec has a package.

    A raster is predicted tile by tile in memory that does not grow with it, and becomes a cloud-optimised GeoTIFF of
    class ids with its georeference; a run that was killed goes on by itself. A file is taken for a raster where -o is a
    .tif; or, unless -o is a .png, where it is a .vrt, .jp2 or .img, or a TIFF with a georeference or of more than 64
    million pixels.

    A video becomes one with the classes' colours over its frames, with its times and sound.

    Exits with 3 where some images could not be read; the others are done. So it does where a video is damaged.

    Parameters
    ----------
    model
        A model folder such as runs/train/best, a checkpoint file, a name of `asymseg models`, a hub id, or what
        `asymseg export` wrote as NAME.onnx.
    inputs
        Images, folders of images or patterns such as "photos/*.jpg", as many as there are; or a list, a raster or a
        video. Several are all taken for pictures.
    out
        Folder for the results; for one image also a file NAME.png, for a raster NAME.tif, for a video NAME.mp4.
    overlay
        Also write NAME_overlay.jpg: the image with the classes' colours over it.
    probabilities
        Also write NAME_probabilities.npz: float16, classes x height x width; of a raster, NAME_probabilities.tif.
    mode
        See an image whole, or slide over it by windows; this and the six below are by default as the model says.
    window
        Height and width of the windows, in pixels of the scaled image.
    stride
        From one window to the next, down and across; by default two thirds of a window.
    weighting
        flat: windows count alike; tapered: less towards their border.
    scales
        Sizes at which the network sees an image.
    flip
        Whether it also sees each image mirrored.
    average
        What is averaged over windows, scales and flips; mixed is logits over windows, then probabilities.
    device
        auto, cpu, cuda or mps.
    precision
        Arithmetic of the network; auto is fp32. bf16 and fp16 are faster on many GPUs, and change some pixels.
    compile
        Compile the network, anew for each size of image; for many images of one size on a GPU.
    fold
        Use the network's evaluation form, which has the same logits; --no-fold keeps the plain one.
    tile
        Rasters, and images with --context image: height and width of what the network sees at once.
    overlap
        Rasters: pixels by which tiles overlap, and over which one fades into the next; by default 128 or half a tile.
        With --context image, what is read around each; by default all that the backbone looks at.
    context
        Rasters: whether the network's blocks see a tile or the whole image, for which it is read up to three times.
        Images, which they see whole anyhow: image runs the rest by tiles, in less memory and several times as long.
    bands
        Rasters: the bands to take, counted from 1, as in --bands 4 3 2; otherwise all but alpha.
    polygons
        Rasters: also write the regions of one class to NAME.gpkg or NAME.geojson.
    opacity
        Images and videos: how much of the colours there is over a picture or a frame, from 0 to 1.
    masks
        Videos: a folder for the class ids of each frame, as palette PNGs that are numbered from 0.
    resume
        Images: keep a manifest in the folder of results, and leave out what it says is done; those that failed are
        tried again. A run with another model or other settings is refused.
    engine
        Images: in this process, or on the Ray cluster that RAY_ADDRESS names, else one of this machine's cores or GPUs;
        with --resume always. Paths must then lead to the same place on all machines.
    workers
        Ray: how many processes hold the model; by default one for each GPU or, where there are none, for each core.
    """
    from asymseg.prediction.loading import Model, load, made_with
    from asymseg.prediction.many.files import Wanted, looking, predict_files
    from asymseg.prediction.many.on_ray import predict_on_ray
    from asymseg.prediction.many.stores import is_address, on_disk
    from asymseg.prediction.onnx.runtime import OnnxPredictor
    from asymseg.prediction.raster.recognising import is_raster
    from asymseg.prediction.video import is_video

    console = make_console()
    predictor = load(model, device, precision=precision, compile=compile, fold=fold).seeing(
        mode=mode,
        window=window,
        stride=stride,
        weighting=weighting,
        scales=scales,
        flip=flip,
        average=average,
    )
    shown = inputs[0] if len(inputs) == 1 else f"{inputs[0]} and {len(inputs) - 1} more"
    one = None if len(inputs) > 1 or is_address(inputs[0]) or is_address(out) else on_disk(inputs[0])
    raster = one is not None and is_raster(one, on_disk(out))
    video = one is not None and not raster and is_video(one)
    for each in inputs if one is None else ():
        if not is_address(each) and is_video(on_disk(each)):
            cure = "predict it by itself" if len(inputs) > 1 else "give a file or a folder on the disk for -o"
            raise ConfigError(f"{each}: a video, and one command takes one from disk to disk; {cure}")
    if (resume or engine == "ray") and (raster or video):
        raise ConfigError(
            f"{shown}: no images, and --resume and --engine are for images; a raster goes on by itself; leave them out"
        )
    if workers is not None and engine == "local":
        raise ConfigError("--workers is for --engine ray; leave it out")
    if masks is not None and not video:
        raise ConfigError(f"{shown}: no video, and --masks is for videos; leave it out")
    if video and (bands is not None or polygons is not None or probabilities):
        raise ConfigError(
            f"{shown}: a video, and --bands, --polygons and --probabilities are not for it; leave them out"
        )
    if raster and one:
        predict_one_raster(
            predictor,
            one,
            on_disk(out),
            tile=tile,
            overlap=overlap,
            context=context,
            bands=bands,
            probabilities=probabilities,
            polygons=polygons,
        )
        return
    if video and one:
        predict_one_video(predictor, one, on_disk(out), opacity=opacity, masks=masks)
        return
    if bands is not None or polygons is not None:
        raise ConfigError(f"{shown}: taken for a picture, and --bands and --polygons are for rasters; -o NAME.tif")
    with progress_bar(console, "predict", waits=engine == "local") as advance, warnings_in_a_line(console):
        wanted = Wanted(overlay, probabilities, tile if context == "image" else None, overlap, opacity)
        named = Model(model, predictor.info.seeing, device, precision, compile, fold)
        if engine == "ray":
            looking(predictor, wanted)  # what holds for all images is said before a cluster is started
            outcome = predict_on_ray(named, inputs, out, wanted, workers=workers, progress=advance)
        else:
            made = made_with(named) if resume else None
            outcome = predict_files(predictor, inputs, out, **asdict(wanted), made_with=made, progress=advance)
    if engine == "local" and not isinstance(predictor, OnnxPredictor):
        say_compile_time(predictor.coarse.compile_seconds, console)
    for failure in outcome.failures:
        say_failure(failure, console)
    before = f"{outcome.before} done before, " if resume or engine == "ray" else ""
    console.print(
        f"{before}{len(outcome.written)} predicted, {len(outcome.failures)} failed; masks in {out}",
        markup=False,
        highlight=False,
    )
    if outcome.failures:
        sys.exit(PARTLY_FAILED)
