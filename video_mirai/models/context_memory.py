"""The cross-attention's keys and values, computed once for a context and kept until another one comes."""

import torch
from torch import Tensor

ContextKeys = tuple[Tensor, Tensor]  # keys and values of one layer, (B or B*F, L, heads, head_dim) each


class ContextMemory:
    """Of the newest context given: the very tensor, unchanged since.

    With gradients there is no memory: keys then belong to the graph of the pass that made them.
    """

    def __init__(self) -> None:
        self._context: Tensor | None = None
        self._version = 0
        self._layers: dict[int, ContextKeys] = {}

    def turn_to(self, context: Tensor, num_layers: int) -> bool:
        """Forget any other context; whether all layers of this one are known."""
        version = 0 if context.is_inference() else context._version
        if context is not self._context or version != self._version or torch.is_grad_enabled():
            self._context, self._version, self._layers = context, version, {}
        return len(self._layers) == num_layers

    def recall(self, layer: int) -> ContextKeys | None:
        """A layer's keys and values (0-based), where they are known."""
        return self._layers.get(layer)

    def keep(self, layer: int, keys: ContextKeys) -> None:
        """Of the context turned to."""
        if not torch.is_grad_enabled():
            self._layers[layer] = keys
