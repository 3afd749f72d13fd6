"""`python -m tools.evaluate_detection` is `sact-tf evaluate-detection`."""

from tools import run

if __name__ == "__main__":
    run("evaluate_detection")
