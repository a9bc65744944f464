"""What a streaming decoder carries from one chunk to the next."""

from torch import Tensor

# diffusers' mark for an upsampling layer that has seen a first frame and has nothing of it to remember.
FIRST_FRAME_SEEN = "Rep"


class DecoderMemory:
    """The last inputs of every causal convolution; empty before the first frame, and always for per-frame codecs.

    Attributes:
        entries: one per convolution, in the decoder's order; filled in by the decoder itself.
    """

    def __init__(self) -> None:
        self.entries: list[Tensor | str | None] = []

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors, by number; marks are numbers without one: see `marks`."""
        return {str(number): entry for number, entry in enumerate(self.entries) if isinstance(entry, Tensor)}

    def marks(self) -> list[bool | None]:
        """For every entry: None = a tensor, True = marked as having seen a first frame, False = untouched."""
        return [None if isinstance(entry, Tensor) else entry == FIRST_FRAME_SEEN for entry in self.entries]

    def load(self, tensors: dict[str, Tensor], marks: list[bool | None]) -> None:
        """Back from `state_dict` and `marks`."""
        self.entries = [
            tensors[str(number)] if mark is None else (FIRST_FRAME_SEEN if mark else None)
            for number, mark in enumerate(marks)
        ]
