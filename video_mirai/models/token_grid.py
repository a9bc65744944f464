"""From an encoder's token grid to the student's: one weight matrix per axis, rows that sum to 1.

Space: where the student's grid is coarser or equal, a token is the mean of the encoder's tokens, weighted by the area
that they share; where it is finer, bilinear between token centres. Time: a latent frame is the mean of the encoder's
time steps, weighted by how much of the latent frame's pixel frames they cover.
"""

import torch
from torch import Tensor


def resample_grid(features: Tensor, time: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, t, h, w, D) -> (B, F, R, C, D).

    Args:
        time: (F, t); rows: (R, h); columns: (C, w), as the functions below make them.
    """
    weights = [matrix.to(features) for matrix in (time, rows, columns)]
    return torch.einsum("bthwd,Ft,Rh,Cw->bFRCd", features, *weights)


def space_weights(given: int, wanted: int) -> Tensor:
    """(wanted, given) along one axis of the picture: area when it gets coarser, linear when it gets finer."""
    if wanted <= given:
        edges = torch.linspace(0, 1, wanted + 1, dtype=torch.float64)
        return overlap_weights(torch.linspace(0, 1, given + 1, dtype=torch.float64), edges)
    position = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * given / wanted - 0.5).clamp(0, given - 1)
    distance = (position[:, None] - torch.arange(given, dtype=torch.float64)).abs()
    return (1 - distance).clamp_min(0)


def time_weights(given: int, frame_edges: list[int]) -> Tensor:
    """(latent frames, given): `given` equal time steps over the whole clip.

    Args:
        frame_edges: pixel frame with which each latent frame starts, and the number of pixel frames at the end.
    """
    edges = torch.tensor(frame_edges, dtype=torch.float64)
    return overlap_weights(torch.linspace(0, float(edges[-1]), given + 1, dtype=torch.float64), edges)


def overlap_weights(given_edges: Tensor, wanted_edges: Tensor) -> Tensor:
    """(wanted, given): the share of each wanted interval that each given one covers; both sets cover the same range."""
    start = torch.maximum(wanted_edges[:-1, None], given_edges[None, :-1])
    end = torch.minimum(wanted_edges[1:, None], given_edges[None, 1:])
    return (end - start).clamp_min(0) / (wanted_edges[1:] - wanted_edges[:-1])[:, None]


def nearest_frames(given: int, wanted: int) -> Tensor:
    """(wanted,) indices into `given` frames, evenly spread; all of them, in order, where the numbers are equal."""
    return ((torch.arange(wanted) * 2 + 1) * given) // (2 * wanted)
