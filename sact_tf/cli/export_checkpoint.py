"""A network becomes a checkpoint of the published format, for TensorFlow 1 tools.

python -m tools.export_checkpoint --model sact.keras --output exported/model.ckpt
"""

import json

from sact_tf.checkpoints import authors
from sact_tf.cli import command_line, networks


def main() -> None:
    """Parses the flags, reads the network, writes the checkpoint."""
    parser = command_line.parser("export_checkpoint", __doc__)
    parser.add_argument("--model", required=True, help=networks.KINDS)
    parser.add_argument(
        "--output",
        required=True,
        metavar="PREFIX",
        help="prefix of the files to write",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    flags = parser.parse_args()
    model = networks.load(flags.model)
    authors.save_authors_checkpoint(model, flags.output)
    names = sorted(authors.variables_by_authors_name(model))
    if flags.json:
        print(json.dumps({"output": flags.output, "variables": names}, indent=1))
    else:
        print(f"{flags.output}: {len(names)} variables and global_step.")


if __name__ == "__main__":
    command_line.run(main)
