"""`python -m tools.demo_detection` is `sact-tf demo-detection`."""

from tools import run

if __name__ == "__main__":
    run("demo_detection")
