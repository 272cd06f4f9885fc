"""Whole runs: their options and recipes, which run a folder holds, and what came of it."""
