"""`python -m tools.benchmark_detector` is `sact-tf benchmark-detector`."""

from tools import run

if __name__ == "__main__":
    run("benchmark_detector")
