"""`python -m tools.serving_load` is `sact-tf serving-load`."""

from tools import run

if __name__ == "__main__":
    run("serving_load")
