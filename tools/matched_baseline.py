"""`python -m tools.matched_baseline` is `sact-tf matched-baseline`."""

from tools import run

if __name__ == "__main__":
    run("matched_baseline")
