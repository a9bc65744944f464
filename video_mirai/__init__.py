"""Causal video diffusion with foresight: train, roll out and evaluate."""

__version__ = "0.1.0"
