"""`python -m tools.export_saved_model` is `sact-tf export-saved-model`."""

from tools import run

if __name__ == "__main__":
    run("export_saved_model")
