"""The demo, a part of it in each module; see `__main__` for the whole."""
