"""The honest comparison: `python -m benchmarks.faithfulness.compare`."""
