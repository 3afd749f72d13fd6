"""The Model Garden's trainer, with sact_tf's experiments beside the Garden's own.

All flags are those of `official.vision.train`. A run that was stopped goes on when the
same command is given again.

Several processes train together when each has its TF_CONFIG and
runtime.distribution_strategy is multi_worker_mirrored or parameter_server: see
docs/distributed.md, and sact-tf launch-local for processes on this machine.
Exit code 138 says that another process has ended, and that this command, given to all
of them again, goes on from the last checkpoint.
"""

import os
import pprint
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gin
import tensorflow as tf
import yaml
from absl import app, flags, logging
from official.common import distribute_utils
from official.common import flags as garden_flags
from official.core import exp_factory, train_utils
from official.vision import train  # noqa: F401, has a flag of its own.

from sact_tf import resumable, text_files
from sact_tf.checkpoints import patterns
from sact_tf.cli import command_line
from sact_tf.distribution import strategies
from sact_tf.distribution.cluster import from_environment
from sact_tf.model_garden import (
    distributed,
    fields,
    numerics,
    registry_imports,  # noqa: F401
    runs,
)

#: Exit code: start all processes again. Kubernetes' training operator does that by
#: itself (restartPolicy: ExitCode), and not after the codes of bad input.
RESTART = 138


def main() -> None:
    """Parses the flags and trains or evaluates."""
    garden_flags.define_flags()
    flags.adopt_module_key_flags(garden_flags)  # So that --help shows them.
    flags.mark_flags_as_required(["experiment", "mode", "model_dir"])
    app.run(lambda argv: _run(_train))


def _run(part):
    command_line.run(lambda: _interruptible(part), log_folder=flags.FLAGS.model_dir)


def _interruptible(train_or_evaluate, *arguments):
    """Says what the same command would do, if it is interrupted."""
    try:
        train_or_evaluate(*arguments)
    except KeyboardInterrupt:
        latest = patterns.latest_checkpoint(flags.FLAGS.model_dir)
        if "train" not in flags.FLAGS.mode:
            again = "evaluates from the beginning"
        elif latest:
            again = f"goes on from {latest}"
        else:
            again = "begins anew: there is no checkpoint yet"
        print(f"\nInterrupted. The same command {again}.", file=sys.stderr)
        sys.exit(130)


def _train():
    params = _experiment()
    cluster = from_environment()
    folder, mode = flags.FLAGS.model_dir, flags.FLAGS.mode
    if "train" in mode:
        patterns.refuse(folder, "A run (--model_dir)")
        _claim(folder, params)
    gin.parse_config_files_and_bindings(flags.FLAGS.gin_file, flags.FLAGS.gin_params)
    runtime = params.runtime
    name = runtime.distribution_strategy
    evaluates = cluster is not None and cluster.role == "evaluator"
    if name in strategies.OF_SEVERAL or evaluates:
        _train_with_others(cluster, params)
        return
    strategies.check(name, cluster)
    strategy = distribute_utils.get_distribution_strategy(
        distribution_strategy=name,
        all_reduce_alg=runtime.all_reduce_alg,
        num_gpus=runtime.num_gpus,
        tpu_address=runtime.tpu,
    )
    runs.train(
        params,
        folder,
        mode,
        strategy=strategy,
        save_aside=flags.FLAGS.enable_async_checkpointing,
    )


def _experiment():
    """What the flags describe, checked.

    Raises:
      ValueError: they describe nothing; the message names the flag or the field.
    """
    where = "--experiment, --config_file or --params_override"
    for path in [*(flags.FLAGS.config_file or []), flags.FLAGS.params_override]:
        if path and os.path.isfile(path):
            _check_yaml(path)
    try:
        usual = exp_factory.get_exp_config(flags.FLAGS.experiment)
        params = train_utils.ExperimentParser(flags.FLAGS).parse()
    except tf.errors.NotFoundError as error:
        raise ValueError(
            "--config_file takes YAML files, and --params_override such a file, YAML, "
            f"JSON, or a.b=1,c.d=[2,3]. There is none that is called {error.message}"
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: this is no YAML ({error})") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {error.args[0]}") from error
    fields.check(params, like=usual)
    params.validate()
    params.lock()
    logging.info("The experiment:\n%s", pprint.pformat(params.as_dict()))
    return params


def _check_yaml(path):
    """Reads a file before the Garden does, to say in one sentence what is wrong."""
    try:
        content = yaml.safe_load(text_files.read(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold fields with names, such as task: {{seed: 1}}. Received: "
            f"{content!r:.80}"
        )


def _train_with_others(cluster, params):
    code = 0
    try:
        with numerics.precision(params.runtime):
            _run(lambda: _take_part(cluster, params))
    except SystemExit as ended:
        code = ended.code
    if code or cluster.asynchronous:
        # Or TensorFlow's threads wait for processes that are gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _take_part(cluster, params):
    try:
        distributed.run(cluster, params, flags.FLAGS.mode, flags.FLAGS.model_dir)
    except distributed.RestartError as error:
        print(f"error: {cluster.name}: {error}", file=sys.stderr)
        sys.exit(RESTART)


def _claim(folder, params):
    """Refuses to go on with, or write over, the run of another network."""
    path = os.path.join(folder, "params.yaml")
    if not tf.train.latest_checkpoint(folder) or not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path) as file:
        there = yaml.safe_load(file)["task"]["model"]
    # Fields that it does not have yet are at their defaults.
    known = type(params.task.model)()
    known.override(there, is_strict=False)
    others = resumable.differences(
        known.as_dict(), params.as_dict()["task"]["model"], "task.model"
    )
    if others:
        raise ValueError(
            f"{folder} holds a run of another network ({'; '.join(others[:3])}). Give "
            "another --model_dir, or move that one away"
        )


if __name__ == "__main__":
    main()
