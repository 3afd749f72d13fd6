"""`python -m tools.ponder_maps` is `sact-tf ponder-maps`."""

from tools import run

if __name__ == "__main__":
    run("ponder_maps")
