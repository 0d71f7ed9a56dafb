"""Convolutions of patches as matrix products.

The transformer cuts its inputs into patches by convolutions whose kernels do not overlap. Libraries
for convolutions are slow at backward passes of such kernels over few channels; as a product of
matrices the same sums take no time to speak of.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PatchConvolution(nn.Module):
    """An ``nn.Conv3d`` whose kernel is its stride, with the same parameters.

    Args:
        convolution: whose parameters it takes.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, F, H, W] -> [B, out, F / f, H / h, W / w] for a kernel of f x h x w."""
        kernel = self.weight.shape[2:]
        parts = x.unflatten(4, (-1, kernel[2])).unflatten(3, (-1, kernel[1]))
        parts = parts.unflatten(2, (-1, kernel[0]))  # [B, in, F', f, H', h, W', w]
        patches = parts.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return functional.linear(patches, self.weight.flatten(1), self.bias).movedim(4, 1)


def convolve_patches_as_products(model: nn.Module) -> None:
    """Replace all convolutions of a model whose kernels do not overlap."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv3d) and module.kernel_size == module.stride:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, PatchConvolution(module))
