"""The scripts behind every number that the project prints: `python -m benchmarks.NAME`."""
