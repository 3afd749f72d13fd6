"""`python -m tools.evaluate` is `sact-tf evaluate`."""

from tools import run

if __name__ == "__main__":
    run("evaluate")
