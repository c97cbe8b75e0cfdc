r"""Whole-image context in memory that does not grow with the image.

A block needs of the whole image only its tokens, 110 in the paper, and these are sums over pixels: with
$P_s(X) = R_s X C_s^\top$ each tile adds $R_s$'s columns times its part of $X$ times $C_s$'s. So an image is read three
times, tile by tile:

1. the backbone's shallow map gives the tokens of the fusion (AFNB);
2. the fused map, behind its 3x3 convolution, gives the tokens of the context (APNB);
3. with both, each tile is predicted.

A network with one block needs two passes, with none a single one.

**What is guaranteed.** A tile is read with its surroundings. Where these cover all pixels that the backbone looks at
(`Tile.exact`; the default of `plan_tiles`), logits are those of the whole image in exact arithmetic, at its borders and
for odd sizes too, whatever the tiles; what differs is rounding. With a smaller halo, cells near a tile's border see
zeros where the whole image has pixels; the error falls as the halo grows, and the context stays that of the whole
image. How far a backbone looks is measured (`asymseg.model.reach`). One with a global operation in it
(squeeze-and-excite, GroupNorm, attention) looks at all pixels, and no halo makes it exact.

Tokens are added up in float64, so the number of tiles leaves no trace. They are small and can be saved: a run that
was stopped in the last pass goes on with them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from asymseg.errors import DataError
from asymseg.model.annnet import pad_for
from asymseg.model.by_tokens import (
    Block,
    Network,
    Pools,
    check_by_tokens,
    context_block,
    features,
    fusion_block,
    scores,
)
from asymseg.model.reach import Reach
from asymseg.prediction.execution import normalised
from asymseg.prediction.predict import ImageSource, Predictor, to_tensor
from asymseg.prediction.result import Result
from asymseg.prediction.tiles import TensorSource, Tile, TileSource, check_one_look, plan_tiles
from asymseg.prediction.tokens import Tokens
from asymseg.prediction.upsampling import NUMBERS_AT_ONCE

Progress = Callable[[int, int], None]
"""Called with how many tiles are done and how many there are, all passes counted."""


@torch.inference_mode()
def gather_tokens(
    predictor: Predictor, source: TileSource, tiles: Sequence[Tile], progress: Progress | None = None
) -> Tokens:
    """The tokens of a whole image, from its tiles: one pass over them for each block of the network.

    Raises ConfigError where the predictor sees an image more than once.
    """
    network = check_by_tokens(predictor.network)
    check_one_look(predictor)
    fusion, context = fusion_block(network), context_block(network)
    total = len(tiles) * sum(block is not None for block in (fusion, context))

    def after(done: int) -> None:
        if progress is not None:
            progress(done, total)

    for_fusion = for_context = None
    with predictor.coarse.running():
        if fusion is not None:
            for_fusion = _gathered(fusion, 0, tiles, lambda tile: _maps(predictor, source, tile)[0], after)
        if context is not None:
            begun = 0 if fusion is None else len(tiles)
            pools = _pools(network, for_fusion)
            for_context = _gathered(
                context,
                1,
                tiles,
                lambda tile: features(network, _maps(predictor, source, tile)[1], pools)[1],
                lambda done: after(begun + done),
            )
    return Tokens(tiles[0].size, for_fusion, for_context)


@torch.inference_mode()
def predict_tile(
    predictor: Predictor, tokens: Tokens, source: TileSource, tile: Tile, *, probabilities: bool = False
) -> UInt8[Tensor, "h w"] | Float[Tensor, "n h w"]:
    """Class ids of a tile's core, or with `probabilities` those of each class, on the predictor's device."""
    network = check_by_tokens(predictor.network)
    if tokens.size != tile.size:
        raise DataError(f"the tokens are of an image of {tokens.size} and not of {tile.size}; gather them again")
    with predictor.coarse.running():
        high = _maps(predictor, source, tile)[1]
        fused, x = features(network, high, _pools(network, tokens.fusion))
        logits = scores(network, fused, x, _pools(network, tokens.context))
    del high, fused, x
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    height, width = (span.stop - span.start for span in tile.core)
    answer = (
        logits.new_empty(logits.shape[1], height, width)
        if probabilities
        else torch.empty(height, width, dtype=torch.uint8, device=logits.device)
    )
    for rows, seen in _upsampled(logits, tile, network.align_corners):
        if probabilities:
            answer[:, rows] = seen.softmax(dim=0)
        else:
            answer[rows] = seen.argmax(dim=0)
    return answer


def stream(
    predictor: Predictor,
    source: ImageSource,
    *,
    tile: int = 1024,
    halo: int | None = None,
    reach: Reach | None = None,
    progress: Progress | None = None,
) -> Result:
    """What `predictor(source)` gives in the mode "whole", for less memory and more time: by tiles, with its context.

    `tile`, `halo` and `reach` are those of `plan_tiles`. The image itself is read whole; for one too large for that,
    give `gather_tokens` and `predict_tile` a source that reads parts.
    """
    image = to_tensor(source, len(predictor.info.mean))
    parts = TensorSource(image)
    tiles = plan_tiles(predictor, parts.size, tile, halo, reach)
    network = check_by_tokens(predictor.network)
    begun = len(tiles) * sum(block is not None for block in (fusion_block(network), context_block(network)))

    def after(done: int, _: int = 0) -> None:
        if progress is not None:
            progress(done, begun + len(tiles))

    tokens = gather_tokens(predictor, parts, tiles, after)
    mask = np.empty(parts.size, dtype=np.uint8)
    for number, part in enumerate(tiles, start=1):
        mask[part.core] = predict_tile(predictor, tokens, parts, part).cpu().numpy()
        after(begun + number)
    return Result(mask, predictor.info.classes, image.numpy(), partial(_probabilities, predictor, tokens, parts, tiles))


def _probabilities(
    predictor: Predictor, tokens: Tokens, source: TileSource, tiles: Sequence[Tile]
) -> Float[np.ndarray, "n h w"]:
    shares = np.empty((len(predictor.info.classes), *source.size), dtype=np.float32)
    for part in tiles:
        shares[:, *part.core] = predict_tile(predictor, tokens, source, part, probabilities=True).cpu().numpy()
    return shares


def _gathered(
    block: Block,
    level: int,
    tiles: Sequence[Tile],
    map_of: Callable[[Tile], Float[Tensor, "1 c h w"]],
    after: Callable[[int], None],
) -> Pools:
    """A block's tokens: what the core of each tile adds to them, in float64."""
    key = pooled = torch.zeros((), dtype=torch.float64)
    for number, tile in enumerate(tiles, start=1):
        in_whole, as_read = tile.cells(level)
        x = map_of(tile)[:, :, as_read[0], as_read[1]]
        corner = in_whole[0].start, in_whole[1].start
        parts = [block.pool.part(y, tile.map_size(level), corner).cpu().double() for y in block.to_pool(x)]
        key, pooled = key + parts[0], pooled + parts[1]
        del x  # before the next tile's maps are made
        after(number)
    return key, pooled


def _maps(
    predictor: Predictor, source: TileSource, tile: Tile
) -> tuple[Float[Tensor, "1 c i j"], Float[Tensor, "1 d h w"]]:
    """The backbone's two maps of what is read for a tile."""
    network = check_by_tokens(predictor.network)
    pixels = normalised(source.read(*tile.padded), predictor.info, predictor.device)
    padded = pad_for(network.backbone, pixels.to(next(network.parameters()).dtype))
    low, high = network.backbone(padded.contiguous(memory_format=torch.channels_last))
    return low, high


def _pools(network: Network, tokens: Pools | None) -> Pools | None:
    """Tokens where the network is, and as precise."""
    if tokens is None:
        return None
    where = next(network.parameters())
    key, pooled = (part.to(where.dtype).to(where.device) for part in tokens)
    return key, pooled


def _upsampled(
    logits: Float[Tensor, "1 n i j"], tile: Tile, align_corners: bool
) -> Iterator[tuple[slice, Float[Tensor, "n r w"]]]:
    """Logits of some rows of a tile's core at a time, by its place in the whole image as `F.interpolate` has it."""
    down, right = (_places(tile, axis, align_corners) for axis in (0, 1))
    step = max(1, NUMBERS_AT_ONCE // (logits.shape[1] * len(right)))
    for first in range(0, len(down), step):
        rows = slice(first, min(first + step, len(down)))
        yield rows, _blend(_blend(logits, down[rows], 2), right, 3)[0]


def _places(tile: Tile, axis: int, align_corners: bool) -> Float64[Tensor, " r"]:
    """Where among the cells that were read each row or column of a tile's core lies."""
    length, target = tile.map_size(1)[axis], tile.covers[axis]
    wanted = torch.arange(tile.core[axis].start, tile.core[axis].stop, dtype=torch.float64)
    if align_corners:
        places = wanted * ((length - 1) / (target - 1) if target > 1 else 0.0)
    else:
        places = ((wanted + 0.5) * (length / target) - 0.5).clamp_(0, length - 1)
    places -= tile.padded[axis].start // tile.reach.strides[1]
    return places


def _blend(x: Float[Tensor, "b n i j"], places: Float64[Tensor, " r"], dim: int) -> Float[Tensor, "b n k l"]:
    """Linear interpolation between rows or columns."""
    before = places.floor().clamp_(max=x.shape[dim] - 1)
    share = (places - before).to(x.dtype).to(x.device)
    first = before.long().to(x.device)
    second = (first + 1).clamp_(max=x.shape[dim] - 1)
    return torch.lerp(x.index_select(dim, first), x.index_select(dim, second), share[:, None] if dim == 2 else share)
