"""What is measured: benchmarks examine observers and return scores."""
