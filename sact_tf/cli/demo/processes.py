"""Manners of the demo's processes."""

import multiprocessing
import os
import threading

import tensorflow as tf


def end_with_parent() -> None:
    """Makes a process end when the one that started it does, whatever ended that."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def share_accelerators() -> None:
    """Keeps a process from taking all of a GPU's memory."""
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
