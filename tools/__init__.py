"""Command lines: parse flags, call sact_tf, print. Run as `python -m tools.<name>`."""
