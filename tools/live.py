"""`python -m tools.live` is `sact-tf live`."""

from tools import run

if __name__ == "__main__":
    run("live")
