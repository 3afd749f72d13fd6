"""`python -m tools.export_checkpoint` is `sact-tf export-checkpoint`."""

from tools import run

if __name__ == "__main__":
    run("export_checkpoint")
