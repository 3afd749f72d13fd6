"""`python -m tools.train` is `sact-tf train`."""

from tools import run

if __name__ == "__main__":
    run("train")
