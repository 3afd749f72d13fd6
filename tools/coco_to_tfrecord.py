"""`python -m tools.coco_to_tfrecord` is `sact-tf coco-to-tfrecord`."""

from tools import run

if __name__ == "__main__":
    run("coco_to_tfrecord")
