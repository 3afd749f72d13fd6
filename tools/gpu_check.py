"""`python -m tools.gpu_check` is `sact-tf gpu-check`."""

from tools import run

if __name__ == "__main__":
    run("gpu_check")
