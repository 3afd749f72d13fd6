"""`python -m tools.reproduce` is `sact-tf reproduce`."""

from tools import run

if __name__ == "__main__":
    run("reproduce")
