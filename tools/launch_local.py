"""`python -m tools.launch_local` is `sact-tf launch-local`."""

from tools import run

if __name__ == "__main__":
    run("launch_local")
