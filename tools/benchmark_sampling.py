"""`python -m tools.benchmark_sampling` is `sact-tf benchmark-sampling`."""

from tools import run

if __name__ == "__main__":
    run("benchmark_sampling")
