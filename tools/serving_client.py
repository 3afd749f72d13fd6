"""`python -m tools.serving_client` is `sact-tf serving-client`."""

from tools import run

if __name__ == "__main__":
    run("serving_client")
