import numpy as np
import pytest
import tensorflow as tf

from sact_tf import errors

CLASSES = ["train_data: the data have classes", [5, 2], "but there are", 2]


def failing(count):
    check = tf.debugging.Assert(count < 2, CLASSES)
    with tf.control_dependencies([check]):
        return tf.identity(count)


def numbers():
    return tf.data.Dataset.range(5, output_type=tf.int32)


def summed(dataset):
    """Sums a data set within a loop of a function."""

    @tf.function
    def loop(iterator):
        total = 0
        for _ in tf.range(5):
            total += next(iterator)
        return total

    return loop(iter(dataset))


def in_replicas(dataset):
    strategy = tf.distribute.MirroredStrategy(["cpu:0"])
    iterator = iter(strategy.experimental_distribute_dataset(dataset.batch(1)))

    @tf.function
    def loop(iterator):
        for _ in tf.range(5):
            strategy.run(lambda x: x, args=(next(iterator),))

    loop(iterator)


def in_loop_of_function():
    @tf.function
    def loop(x):
        return tf.while_loop(lambda x: x < 5, lambda x: [failing(x) + 1], [x])

    loop(tf.constant(0))


def raising(_):
    raise ValueError("what is\nwrong")


def python_function(x):
    return tf.ensure_shape(tf.numpy_function(raising, [x], tf.int32), [])


def decoded(content):
    def decode(content):
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        return tf.reduce_sum(tf.cast(image, tf.int32))

    return tf.data.Dataset.from_tensors(content).map(decode)


def jpeg():
    noise = np.random.default_rng(0).integers(0, 256, [64, 64, 3], np.uint8)
    return tf.io.encode_jpeg(noise).numpy()


SENTENCE = "train_data: the data have classes [5 2] but there are 2"


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda: list(numbers().map(failing)), SENTENCE),
        (lambda: list(numbers().map(failing, 2).batch(2).prefetch(1)), SENTENCE),
        (lambda: summed(numbers().map(failing)), SENTENCE),
        (lambda: in_replicas(numbers().map(failing)), SENTENCE),
        (in_loop_of_function, SENTENCE),
        (lambda: summed(numbers().map(python_function)), "what is wrong"),
        (
            lambda: summed(decoded(jpeg()[:600])),
            "jpeg::Uncompress failed. Invalid JPEG data or crop window.",
        ),
        (lambda: summed(numbers().take(2)), "End of sequence"),
        (
            lambda: tf.io.read_file("/nowhere/a.png"),
            "/nowhere/a.png; No such file or directory",
        ),
    ],
)
def test_the_cause_is_one_line(compute, expected):
    with pytest.raises(tf.errors.OpError) as caught:
        compute()
    assert errors.cause(caught.value) == expected


def test_the_root_of_several_errors():
    message = """Graph execution error:

Detected at node 'while' defined at (most recent call last):
    File "/x.py", line 3, in <module>
      foo(bar)
Node: 'while'
2 root error(s) found.
  (0) CANCELLED:  Function was cancelled before it was started
\t [[{{node while}}]]
  (1) INVALID_ARGUMENT:  assertion failed: [of class] [12]
\t [[{{node Assert}}]]
0 successful operations.
0 derived errors ignored. [Op:__inference_f_1]"""
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert errors.cause(error) == "of class 12"


def test_other_errors_are_what_they_say():
    assert errors.cause(ValueError("a\n b")) == "a b"
    assert errors.cause(KeyError()) == "KeyError"
    assert errors.cause(tf.errors.InternalError(None, None, "")) == "InternalError"
