"""`python -m tools.compare` is `sact-tf compare`."""

from tools import run

if __name__ == "__main__":
    run("compare")
