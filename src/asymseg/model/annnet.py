"""ANNNet: asymmetric fusion, a 3x3 convolution, asymmetric context, a classifier (Zhu et al., ICCV 2019, figure 2)."""

from pathlib import Path
from typing import Any, Literal, overload

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.blocks import AFNB, APNB, NonLocalBlock
from asymseg.blocks.attention import Merge
from asymseg.errors import ConfigError
from asymseg.model.backbone import TimmBackbone, make_backbone
from asymseg.model.psp import PyramidConcat
from asymseg.model.refine import Refine, conv_bn_relu
from asymseg.model.wang import WangNonLocalBlock

Fusion = Literal["afnb", "none"]
Context = Literal["apnb", "nonlocal", "nonlocal_wang", "psp", "none"]


class ANNNet(nn.Module):
    """Semantic segmentation with asymmetric non-local attention; images B C H W in, logits B num_classes H W out.

    Two switches give the networks it is compared with: `fusion` "none" and `context` "none" is FCN, "none" and
    "nonlocal" the non-local network, "none" and "psp" PSPNet, "afnb" and "apnb" ANNNet. Height and width are free, in
    training and evaluation alike. mmsegmentation's FCN is "none" and "none" with `refine`, its non-local network "none"
    and "nonlocal_wang" with `refine`.

    Args:
        num_classes: Number of classes.
        backbone: A timm name, for ResNets perhaps with changes (`asymseg.model.resnet`), or a module that gives
            (low, high) and whose `channels` says their widths, or a feature network of timm's.
        pretrained: True for timm's weights, a file of weights, or False. Without effect on a module passed in.
        fusion: What joins the two maps of the backbone.
        context: What brings in the whole image.
        output_stride: Image pixels per feature pixel: 8, 16 or 32. Without effect on a module passed in.
        in_channels: Channels of the images. Without effect on a module passed in.
        pool_sizes: Grid sizes of the pyramid; their squares add up to the number of tokens.
        key_channels: Width of queries and keys.
        value_channels: Width of values.
        context_channels: Width of the features between the 3x3 convolution and the classifier.
        merge: How a block joins context and input.
        aux_channels: Width of the auxiliary classifier on `low`; 0 builds none.
        dropout: Share of channels dropped after the fusion, after the context and in the auxiliary classifier.
        align_corners: How logits are upsampled.
        stages: Which two feature maps of a timm backbone are low and high, by its own indices; the paper's are the
            last two. Without effect on a module passed in.
        refine: Whether two more 3x3 convolutions, the second of which sees the backbone's map again, come before the
            classifier.

    Raises:
        ConfigError: An unknown backbone, or a combination that cannot be built.
        CheckpointError: Weights that cannot be had or do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str | nn.Module = "resnet50",
        pretrained: bool | str | Path = False,
        fusion: Fusion = "afnb",
        context: Context = "apnb",
        output_stride: Literal[8, 16, 32] = 8,
        in_channels: int = 3,
        pool_sizes: tuple[int, ...] = (1, 3, 6, 8),
        key_channels: int = 256,
        value_channels: int = 256,
        context_channels: int = 512,
        merge: Merge = "concat",
        aux_channels: int = 512,
        dropout: float = 0.05,
        align_corners: bool = False,
        stages: tuple[int, int] = (-2, -1),
        refine: bool = False,
    ) -> None:
        super().__init__()
        _check_choice("fusion", fusion, ("afnb", "none"))
        _check_choice("context", context, ("apnb", "nonlocal", "nonlocal_wang", "psp", "none"))
        _check_choice("output_stride", output_stride, (8, 16, 32))
        _check_choice("merge", merge, ("concat", "add", "none"))
        counted_alike = len(stages) == 2 and (stages[0] < 0) == (stages[1] < 0)
        if len(stages) != 2 or (counted_alike and stages[0] >= stages[1]):
            raise ConfigError(f"stages must name two feature maps, the earlier first, not {stages}")
        if in_channels < 1:
            raise ConfigError(f"in_channels must be at least 1, not {in_channels}")
        if num_classes < 1:
            raise ConfigError(f"num_classes must be at least 1, not {num_classes}")
        self.settings: dict[str, Any] = {
            "num_classes": num_classes,
            "backbone": backbone if isinstance(backbone, str) else None,
            "fusion": fusion,
            "context": context,
            "stages": tuple(stages),
            "output_stride": output_stride,
            "in_channels": in_channels,
            "pool_sizes": tuple(pool_sizes),
            "key_channels": key_channels,
            "value_channels": value_channels,
            "context_channels": context_channels,
            "merge": merge,
            "aux_channels": aux_channels,
            "dropout": dropout,
            "align_corners": align_corners,
            "refine": refine,
        }
        self.num_classes = num_classes
        self.align_corners = align_corners
        attention = {"key_channels": key_channels, "value_channels": value_channels}

        if isinstance(backbone, str):
            weights = Path(pretrained) if isinstance(pretrained, str) else pretrained
            backbone = make_backbone(backbone, weights, stages, output_stride, in_channels)
        elif hasattr(backbone, "feature_info") and not hasattr(backbone, "channels"):
            backbone = TimmBackbone(backbone)  # what timm.create_model(..., features_only=True) gives
        self.backbone = backbone
        low_channels, high_channels = _channels(backbone)

        self.fusion = (
            AFNB(low_channels, high_channels, pool_sizes=pool_sizes, merge=merge, **attention)
            if fusion == "afnb"
            else None
        )
        self.dropout = nn.Dropout2d(dropout)
        # PSPNet's pyramid sits before the 3x3 convolution, which joins its parts; attention sits after it.
        self.pyramid = (
            PyramidConcat(high_channels, context_channels, pool_sizes, align_corners) if context == "psp" else None
        )
        project_channels = self.pyramid.out_channels if self.pyramid is not None else high_channels
        self.project = conv_bn_relu(project_channels, context_channels)
        self.context: APNB | NonLocalBlock | WangNonLocalBlock | None = None
        if context == "apnb":
            self.context = APNB(context_channels, pool_sizes=pool_sizes, merge=merge, **attention)
        elif context == "nonlocal":
            self.context = NonLocalBlock(context_channels, merge=merge, **attention)
        elif context == "nonlocal_wang":
            self.context = WangNonLocalBlock(context_channels, **attention)
        self.refine = Refine(high_channels, context_channels) if refine else None
        self.classifier = nn.Conv2d(context_channels, num_classes, 1)
        self.aux_classifier = (
            nn.Sequential(
                *conv_bn_relu(low_channels, aux_channels),
                nn.Dropout2d(dropout),
                nn.Conv2d(aux_channels, num_classes, 1),
            )
            if aux_channels
            else None
        )

    @overload
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n h w"]: ...

    @overload
    def forward(
        self, images: Float[Tensor, "b c h w"], with_aux: Literal[True]
    ) -> tuple[Float[Tensor, "b n h w"], Float[Tensor, "b n h w"]]: ...

    def forward(
        self, images: Float[Tensor, "b c h w"], with_aux: bool = False
    ) -> Float[Tensor, "b n h w"] | tuple[Float[Tensor, "b n h w"], Float[Tensor, "b n h w"]]:
        """Logits at the size of the images; with `with_aux` also the auxiliary classifier's, for the loss."""
        one_pixel = max(getattr(self.backbone, "stride", 1), getattr(self.backbone, "size_multiple", 1))
        if self.training and images.shape[0] == 1 and max(images.shape[2:]) <= one_pixel:
            # The smallest map is one pixel, and BatchNorm refuses a single value per channel. The same image twice has
            # the same mean and variance.
            both = self(images.repeat(2, 1, 1, 1), with_aux)
            return (both[0][:1], both[1][:1]) if with_aux else both[:1]

        padded = pad_for(self.backbone, images)
        low, high = self.backbone(padded)
        logits = upsample(self.head(low, high), padded, images, self.align_corners)
        if not with_aux:
            return logits
        if self.aux_classifier is None:
            raise ConfigError(
                "with_aux=True needs an auxiliary classifier; build the network with aux_channels above 0"
            )
        return logits, upsample(self.aux_classifier(low), padded, images, self.align_corners)

    def head(self, low: Float[Tensor, "b l hl wl"], high: Float[Tensor, "b g hg wg"]) -> Float[Tensor, "b n hg wg"]:
        """Logits at the size of `high`, from the two maps of the backbone."""
        high = high if self.fusion is None else self.fusion(low, high)
        x = self.dropout(high)
        if self.pyramid is not None:
            x = self.pyramid(x)
        x = self.project(x)
        if self.context is not None:
            x = self.context(x)
        if self.refine is not None:
            x = self.refine(high, x)
        return self.classifier(self.dropout(x))  # type: ignore[no-any-return]


def pad_for(backbone: nn.Module, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hp wp"]:
    """The images with zeros at their right and lower ends, up to a size that the backbone takes."""
    multiple = getattr(backbone, "size_multiple", 1)
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple)) if multiple > 1 else images


def upsample(
    logits: Float[Tensor, "b n i j"],
    padded: Float[Tensor, "b c hp wp"],
    images: Float[Tensor, "b c h w"],
    align_corners: bool,
) -> Float[Tensor, "b n h w"]:
    """Logits at the size of the images, from coarse ones that cover the padded images."""
    height, width = images.shape[2:]
    full = F.interpolate(logits, padded.shape[2:], mode="bilinear", align_corners=align_corners)
    return full[:, :, :height, :width]


def _channels(backbone: nn.Module) -> tuple[int, int]:
    channels = getattr(backbone, "channels", None)
    if not (isinstance(channels, tuple | list) and len(channels) == 2 and all(isinstance(c, int) for c in channels)):
        raise ConfigError(
            f"the backbone {type(backbone).__name__} needs an attribute 'channels' with the widths of the two maps it "
            "returns, as in self.channels = (1024, 2048)"
        )
    return channels[0], channels[1]


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} = {value!r} is not one of {', '.join(map(repr, allowed))}")
