"""`python -m tools.demo` is `sact-tf demo`."""

from tools import run

if __name__ == "__main__":
    run("demo")
