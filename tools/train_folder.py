"""`python -m tools.train_folder` is `sact-tf train-folder`."""

from tools import run

if __name__ == "__main__":
    run("train_folder")
