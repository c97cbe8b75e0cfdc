"""Putting convolutions of another kind, with the same parameters, in the place of a network's own."""

from collections.abc import Callable

from torch import nn


def replace_convolutions(module: nn.Module, kind: type[nn.Conv2d], fits: Callable[[nn.Conv2d], bool]) -> None:
    """Make every plain convolution below `module` that `fits` one of `kind`; the parameters are the very same."""
    for name, child in module.named_children():
        if type(child) is nn.Conv2d and fits(child) and not is_watched(child):
            twin = kind(
                child.in_channels,
                child.out_channels,
                child.kernel_size,  # type: ignore[arg-type]
                padding=child.padding,  # type: ignore[arg-type]
                dilation=child.dilation,  # type: ignore[arg-type]
                groups=child.groups,
                bias=child.bias is not None,
                device="meta",
            )
            twin.weight, twin.bias = child.weight, child.bias
            twin.train(child.training)
            setattr(module, name, twin)
        else:
            replace_convolutions(child, kind, fits)


def is_watched(module: nn.Module) -> bool:
    """Whether hooks see, and so may change, what goes into a module or comes out of it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
