"""`python -m tools.fixed_camera` is `sact-tf fixed-camera`."""

from tools import run

if __name__ == "__main__":
    run("fixed_camera")
