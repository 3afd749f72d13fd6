"""`python -m tools.completion` is `sact-tf completion`."""

from tools import run

if __name__ == "__main__":
    run("completion")
