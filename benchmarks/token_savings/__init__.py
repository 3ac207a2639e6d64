"""What Code Mode saves, measured on real servers with tasks whose results are checked. `python -m benchmarks.token_savings`."""
