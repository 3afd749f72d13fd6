"""`python -m tools.benchmark_saliency` is `sact-tf benchmark-saliency`."""

from tools import run

if __name__ == "__main__":
    run("benchmark_saliency")
