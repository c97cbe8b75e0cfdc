"""Classes of the data sets that published weights were trained on, where their files do not say."""

from asymseg.classes import Classes, Colour, default_palette

_CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
_CONTEXT = (
    "aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat ceiling chair cloth "
    "computer cow cup curtain dog door fence floor flower food grass ground horse keyboard light motorbike mountain "
    "mouse person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow sofa table track train "
    "tree truck tvmonitor wall water window wood"
)

CITYSCAPES = Classes(tuple(_CITYSCAPES), tuple(_CITYSCAPES.values()))
"""The 19 evaluated classes, by train id."""

VOC2012 = Classes(tuple(_VOC.split()), ((0, 0, 0), *default_palette(20)))
"""Background and the 20 objects of PASCAL VOC 2012."""

PASCAL_CONTEXT = Classes(tuple(_CONTEXT.split()))
"""The 59 classes without background, in the alphabetical order of the masks that the Detail API gives."""


def numbered_classes(count: int) -> Classes:
    """Names for classes of which nothing is known."""
    return Classes(tuple(f"class {number}" for number in range(count)))
