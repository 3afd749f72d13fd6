"""`python -m tools.benchmark_dense` is `sact-tf benchmark-dense`."""

from tools import run

if __name__ == "__main__":
    run("benchmark_dense")
