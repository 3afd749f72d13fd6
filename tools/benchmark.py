"""`python -m tools.benchmark` is `sact-tf benchmark`."""

from tools import run

if __name__ == "__main__":
    run("benchmark")
