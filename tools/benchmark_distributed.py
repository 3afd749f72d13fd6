"""`python -m tools.benchmark_distributed` is `sact-tf benchmark-distributed`."""

from tools import run

if __name__ == "__main__":
    run("benchmark_distributed")
