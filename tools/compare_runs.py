"""`python -m tools.compare_runs` is `sact-tf compare-runs`."""

from tools import run

if __name__ == "__main__":
    run("compare_runs")
