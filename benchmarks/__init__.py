"""What is measured against what; run by scripts/benchmark.py, explained in docs/performance.md."""
