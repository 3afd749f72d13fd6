"""`python -m tools.import_checkpoint` is `sact-tf import-checkpoint`."""

from tools import run

if __name__ == "__main__":
    run("import_checkpoint")
