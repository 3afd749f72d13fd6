"""What a GPU makes of the networks: `python -m tools.gpu_check`."""
