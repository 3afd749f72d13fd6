"""`python -m tools.evaluate_saliency` is `sact-tf evaluate-saliency`."""

from tools import run

if __name__ == "__main__":
    run("evaluate_saliency")
