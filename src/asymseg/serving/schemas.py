"""What requests and answers hold, for the checks and for /openapi.json."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Output = Literal["json", "mask", "overlay", "probabilities"]


class Wanted(BaseModel):
    """What is asked for beside an image."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(description="A name of /v1/models; by default the first.")] = None
    output: Annotated[Output, Field(description="What the answer is.")] = "json"
    opacity: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="Of the colours over the image, for the overlay.")
    ] = 0.5
    polygons: Annotated[bool, Field(description="With json: also the regions of each class as GeoJSON.")] = False
    keep: Annotated[
        bool, Field(description="With json: keep the result for some minutes, for questions about its pixels.")
    ] = False


class PixelPlace(BaseModel):
    """A pixel."""

    model_config = ConfigDict(extra="forbid")

    row: Annotated[int, Field(ge=0, description="From the top, counted from 0.")]
    column: Annotated[int, Field(ge=0, description="From the left, counted from 0.")]


class Fault(BaseModel):
    code: Annotated[str, Field(description="For programs.")]
    message: Annotated[str, Field(description="For people: what is wrong, and the cure, in one line.")]


class Refused(BaseModel):
    """An answer other than the one asked for."""

    error: Fault


class Class(BaseModel):
    id: int
    name: str
    colour: Annotated[str, Field(description="As #rrggbb.")]


class ClassArea(Class):
    pixels: int
    share: Annotated[float, Field(description="Of all pixels of the image.")]


class Prediction(BaseModel):
    """What a model says about an image."""

    id: Annotated[str | None, Field(description="With keep, where there was room: its name for /v1/predictions.")]
    model: str
    version: str
    height: int
    width: int
    seconds: Annotated[float, Field(description="From the end of the upload to the result, waiting included.")]
    classes: Annotated[list[ClassArea], Field(description="All of the model's, in the order of their ids.")]
    ids_png: Annotated[str, Field(description="In base64, a grey PNG of 8 bit whose values are class ids.")]
    polygons: Annotated[
        dict[str, Any] | None,
        Field(description="A GeoJSON FeatureCollection in pixels, x to the right and y down; null unless asked for."),
    ]


class ClassProbability(BaseModel):
    id: int
    name: str
    probability: float


class Region(BaseModel):
    """A part of the image, in pixels; bottom and right are just outside."""

    top: int
    left: int
    bottom: int
    right: int
    weight: Annotated[float, Field(description="Its part of what the pixel drew on; those of a block add up to 1.")]


class BlockAttention(BaseModel):
    block: Literal["afnb", "apnb"]
    regions: list[Region]


class PixelAnswer(BaseModel):
    """What a model says about one pixel."""

    row: int
    column: int
    class_: Annotated[int, Field(alias="class")]
    probabilities: Annotated[list[ClassProbability], Field(description="Best first.")]
    attention: Annotated[
        list[BlockAttention] | None,
        Field(description="The regions that the pixel drew on; null where the model cannot tell them."),
    ]


class Preprocessing(BaseModel):
    channels: int
    mean: Annotated[list[float], Field(description="On the 0..1 scale, in the order of channel_order.")]
    std: list[float]
    channel_order: str


class ModelDescription(BaseModel):
    """A model that is served."""

    name: str
    version: Annotated[str, Field(description="Changes with the model's files.")]
    classes: list[Class]
    parameters: Annotated[int, Field(description="Numbers in the network; 0 where its file does not tell.")]
    preprocessing: Preprocessing
    seeing: Annotated[str, Field(description="How it looks at an image.")]
    license: str
    source: str
    metrics: dict[str, Any]
    attention: Annotated[bool, Field(description="Whether it can tell what a pixel drew on.")]
    device: str
    fault: Annotated[str | None, Field(description="Why what lies in its place now has not replaced it.")]


class Example(BaseModel):
    name: str
    url: str


class Live(BaseModel):
    live: bool


class ModelReady(BaseModel):
    version: str
    reload_failed: Annotated[bool, Field(description="Whether a newer one could not be loaded; see /v1/models.")]


class Ready(BaseModel):
    ready: bool
    models: dict[str, ModelReady]
