"""`python -m tools.detect` is `sact-tf detect`."""

from tools import run

if __name__ == "__main__":
    run("detect")
