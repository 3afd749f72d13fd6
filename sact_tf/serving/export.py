"""A servable on disk: a versioned SavedModel with what a server wants to have with it.

```
output/
  models.config, batching.config, monitoring.config
  NAME/
    1/
      saved_model.pb, variables/
      assets/labels.txt
      assets.extra/tf_serving_warmup_requests, signatures.md, network.json
```
"""

import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.config import model_server_config_pb2

from sact_tf import text_files
from sact_tf.checkpoints import patterns
from sact_tf.geometry.control_flow import portable
from sact_tf.models.backbone import record_beside
from sact_tf.serving import checks, warmup

DOCUMENTATION = "assets.extra/signatures.md"
MODELS = "models.config"
BATCHING = "batching.config"
MONITORING = "monitoring.config"

# In every TensorFlow, but they call Python, which a server has not.
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


class Servable(Protocol):
    """What can be exported: a tf.Module that says this about itself.

    Attributes:
      signatures: tf.functions by name, each with an input signature; one of them
        "serving_default". Their inputs and outputs have the batch as first axis (a
        server that batches requires that of all of them).
      documentation: what inputs and outputs mean, by name.
      limits: what requests are refused.
      arguments: of the network that it was made of, as plain values.
    """

    signatures: Mapping[str, tf.types.experimental.PolymorphicFunction]
    documentation: Mapping[str, str]
    limits: checks.Limits
    arguments: Mapping

    def warmup_requests(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Pairs of signature and inputs that exercise all of the graph."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
      folder: of the SavedModel.
      name: of the model on a server.
      version: number of the version.
      ops: names of all operations in the graph.
      signatures: names of the signatures.
      warmup_requests: how many there are.
    """

    folder: pathlib.Path
    name: str
    version: int
    ops: tuple[str, ...]
    signatures: tuple[str, ...]
    warmup_requests: int


def write(
    servable: Servable,
    output: str | os.PathLike,
    name: str,
    *,
    version: int | None = None,
    overwrite: bool = False,
) -> Export:
    """Writes a servable as output/name/version, whole or not at all.

    A server that watches the folder sees a version when it is complete.

    Args:
      servable: what to export.
      output: folder of the models of a server.
      name: of the model.
      version: number of the version; by default one more than the highest there is.
      overwrite: whether a version that is there already is replaced.

    Raises:
      ValueError: output, name or version cannot be one, or the graph has operations
        that a stock server lacks.
      FileExistsError: the version is there already.
    """
    patterns.refuse(output, "A SavedModel")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(
            "The name of a model must be of letters, digits, '_', '-' and '.'. "
            f"Received: {name!r}"
        )
    models = pathlib.Path(output) / name
    if version is None:
        version = max(versions(models), default=0) + 1
    if version < 1:
        raise ValueError(f"The version must be at least 1. Received: {version}")
    target = models / str(version)
    _refuse(target, overwrite)
    models.mkdir(parents=True, exist_ok=True)
    # In the same file system, where a server does not look: the name is no number.
    with tempfile.TemporaryDirectory(dir=models, prefix=".exporting-") as temporary:
        written = pathlib.Path(temporary) / "new"
        with portable():
            tf.saved_model.save(servable, str(written), signatures=servable.signatures)
        ops = graph_ops(written)
        refuse_foreign_ops(ops)
        count = warmup.write(written, name, servable.warmup_requests())
        record_beside(written, servable.arguments)
        (written / DOCUMENTATION).write_text(
            _documentation(written, name, servable.documentation), encoding="utf-8"
        )
        _refuse(target, overwrite)
        if target.exists():
            target.rename(pathlib.Path(temporary) / "old")
        written.rename(target)
    return Export(target, name, version, ops, tuple(servable.signatures), count)


def write_server_configs(
    output: str | os.PathLike, name: str, limits: checks.Limits
) -> list[pathlib.Path]:
    """Writes what `tensorflow_model_server` takes as configuration files.

    The model is added to models.config if it is not there; other files that are there
    already stay as they are.

    Args:
      output: folder of the models, as an absolute path in models.config.
      name: of the model.
      limits: the largest batch is that of the model.

    Returns:
      The files that were written or changed.
    """
    output = pathlib.Path(output).absolute()
    written = []
    models = model_server_config_pb2.ModelServerConfig()
    path = output / MODELS
    if path.exists():
        try:
            text_format.Parse(text_files.read(path), models)
        except text_format.ParseError as error:
            raise ValueError(
                f"{path} is no configuration of models. Mend it, or move it away. "
                f"({error})"
            ) from error
    if all(config.name != name for config in models.model_config_list.config):
        models.model_config_list.config.add(
            name=name, base_path=str(output / name), model_platform="tensorflow"
        )
        _replace(path, text_format.MessageToString(models))
        written.append(path)
    others = {
        BATCHING: f"""\
# --enable_batching --batching_parameters_file=THIS_FILE
# The model refuses batches that are larger than this.
max_batch_size {{ value: {limits.max_batch_size} }}
# How long a request waits for others.
batch_timeout_micros {{ value: 2000 }}
# More requests than that are answered with UNAVAILABLE.
max_enqueued_batches {{ value: 100 }}
# Usually the number of cores, or of accelerators.
num_batch_threads {{ value: {os.cpu_count()} }}
""",
        MONITORING: """\
# --monitoring_config_file=THIS_FILE, with --rest_api_port
prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }
""",
    }
    for file, text in others.items():
        if not (output / file).exists():
            _replace(output / file, text)
            written.append(output / file)
    return written


def versions(models: str | os.PathLike) -> list[int]:
    """Numbers of the versions in the folder of a model."""
    folder = pathlib.Path(models)
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def graph_ops(folder: str | os.PathLike) -> tuple[str, ...]:
    """Names of all operations in a SavedModel, functions included."""
    graph = meta_graph(folder).graph_def
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    functions = {function.signature.name for function in graph.library.function}
    return tuple(sorted({node.op for node in nodes} - functions))


def refuse_foreign_ops(ops: tuple[str, ...]) -> None:
    """Raises ValueError if a stock TensorFlow Serving lacks one of the operations."""
    foreign = [op for op in ops if op in _PYTHON_OPS or not hasattr(tf.raw_ops, op)]
    if foreign:
        raise ValueError(
            "The graph has operations that a stock TensorFlow Serving lacks: "
            f"{', '.join(foreign)}. Build the network of TensorFlow's own operations"
        )


def meta_graph(folder: str | os.PathLike) -> meta_graph_pb2.MetaGraphDef:
    """Graph and signatures of a SavedModel."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0]


def _refuse(target, overwrite):
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(
            f"{target} exists already. Give another version, or none for the next one; "
            "--overwrite replaces it"
        )


def _replace(path, text):
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _documentation(folder, name, meanings):
    lines = [f"# {name}", ""]
    signatures = meta_graph(folder).signature_def
    for key in sorted(key for key in signatures if not key.startswith("__")):
        lines += [
            f"## {key}",
            "",
            "| | name | type | shape | |",
            "|---|---|---|---|---|",
        ]
        for kind in ("inputs", "outputs"):
            for tensor, info in sorted(getattr(signatures[key], kind).items()):
                shape = tf.TensorShape(info.tensor_shape)
                sides = "any" if shape.rank is None else shape.as_list()
                sides = str(sides).replace("None", "?")
                dtype = tf.as_dtype(info.dtype).name
                lines.append(
                    f"| {kind[:-1]} | `{tensor}` | {dtype} | {sides} | "
                    f"{meanings[tensor]} |"
                )
        lines.append("")
    return "\n".join(lines)
