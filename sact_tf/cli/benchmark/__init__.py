"""How much time sparse execution saves: `python -m tools.benchmark`."""
