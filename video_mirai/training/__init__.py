"""Training: the loop, its optimisers and average, checkpoints, and what it reports."""
