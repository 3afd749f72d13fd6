"""`python -m tools.train_cifar` is `sact-tf train-cifar`."""

from tools import run

if __name__ == "__main__":
    run("train_cifar")
