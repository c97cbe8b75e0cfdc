"""The paper's blocks, each a module of its own that needs torch alone.

PyramidPooling   110 tokens that stand for a whole feature map
APNB             asymmetric pyramid non-local block: every pixel looks at the tokens of its own map
AFNB             asymmetric fusion non-local block: every pixel of a deep map looks at the tokens of a shallow one
NonLocalBlock    the symmetric block: every pixel looks at every pixel; what the others are measured against
"""

from asymseg.blocks.afnb import AFNB
from asymseg.blocks.apnb import APNB
from asymseg.blocks.non_local import NonLocalBlock
from asymseg.blocks.pyramid_pooling import PyramidPooling

__all__ = ["AFNB", "APNB", "NonLocalBlock", "PyramidPooling"]
