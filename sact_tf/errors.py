"""What is wrong, in one line, out of what TensorFlow says in many."""

import re

import tensorflow as tf

#: Lines around the cause: where in a graph, or in the source, it happened.
_PLACES = re.compile(
    r"Graph execution error:"
    r"|Detected at node .*"
    r"|<stack traces unavailable>"
    r"|Node: .*"
    r"|\d+ root error\(s\) found\."
    r"|\s+(?:File \"|\[\[).*"
    r"|\s{4,}.*"
)
#: What comes after the cause.
_REST = re.compile(
    r"\n\s*(?:Traceback \(most recent call last\)|Hint: |Additional GRPC error"
    r"|\d+ successful operations\.)"
)
_ROOT = re.compile(r"^ *\((\d+)\) ([A-Z_]+): *", re.MULTILINE)
_WRAPPERS = (
    r"\{\{.*?\}\}",
    r"\s*\[Op:.*",
    r"Error in user-defined function passed to \S+ transformation with iterator: \S+: ",
    r"^\w+Error: ",
)
_ASSERTIONS = ("assertion failed: ", "Expected 'False' to be true. Summarized data: ")


def cause(error: BaseException) -> str:
    """What is wrong, in one line.

    Errors of TensorFlow begin with where in the graph they happened, and end with it.
    What is asserted within graphs, loops and data sets is a sentence in brackets.
    """
    if not isinstance(error, tf.errors.OpError):
        return " ".join(str(error).split()) or type(error).__name__
    text = _REST.split(_root(error.message or ""))[0]
    lines = [line for line in text.splitlines() if not _PLACES.fullmatch(line)]
    text = " ".join(" ".join(lines).split())
    for wrapper in _WRAPPERS:
        text = re.sub(wrapper, "", text).strip()
    for beginning in _ASSERTIONS:
        if text.startswith(beginning):
            text = _sentence(text.removeprefix(beginning))
    return text or type(error).__name__


def _root(message):
    """Of several errors, the one that the others follow from."""
    _, *roots = _ROOT.split(message)
    if not roots:
        return message
    found = list(zip(roots[1::3], roots[2::3], strict=True))
    causes = [text for code, text in found if code not in ("CANCELLED", "ABORTED")]
    return (causes or [text for _, text in found])[0]


def _sentence(text):
    """Parts of an assertion, "[such words] [2 3]", as they are meant to be read."""

    def part(match):
        words = match.group(1)
        # Several numbers stay together.
        return match.group() if re.fullmatch(r"-?[\d.]+( .*)+", words) else words

    text = re.sub(r"b'([^']*)'", r"\1", text)
    return re.sub(r"(?<!\S)\[(.*?)\](?!\S)", part, text)
