"""A network becomes a checkpoint of the published format, for TensorFlow 1 tools.

sact-tf export-checkpoint --model sact.keras --output exported/model.ckpt
"""

import argparse

from sact_tf.checkpoints import authors
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--model", required=True, help=networks.KINDS)
    parser.add_argument(
        "--output",
        required=True,
        metavar="PREFIX",
        help="prefix of the files to write",
    )


def run(flags: argparse.Namespace) -> dict:
    """Reads the network, writes the checkpoint."""
    model = networks.load(flags.model)
    authors.save_authors_checkpoint(model, flags.output)
    names = sorted(authors.variables_by_authors_name(model))
    return {"output": flags.output, "variables": names}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    names = result["variables"]
    return f"{flags.output}: {len(names)} variables and global_step."


COMMAND = command_line.Command("export_checkpoint", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
