"""What measures the product: `python -m benchmarks WHAT`, which `recs bench WHAT` starts. See README.md."""
