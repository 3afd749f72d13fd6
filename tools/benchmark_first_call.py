"""`python -m tools.benchmark_first_call` is `sact-tf benchmark-first-call`."""

from tools import run

if __name__ == "__main__":
    run("benchmark_first_call")
