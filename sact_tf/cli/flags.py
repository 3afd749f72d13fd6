"""Flags: one spelling for people, whichever they type; and what is behind them."""

import argparse
import sys
from collections.abc import Iterator, Sequence


class Parser(argparse.ArgumentParser):
    """A parser whose flags have underscores, and are known with hyphens as well.

    ```python
    parser = Parser(description="...")
    parser.add_argument("--image_size", type=int)
    parser.renamed(size="image_size")
    parser.parse_args(["--image-size", "224"])  # and --image_size, and --size
    ```
    """

    def __init__(self, *arguments, **options):
        """Takes what argparse.ArgumentParser takes; shows descriptions as written."""
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)
        self._renamed: dict[str, str] = {}

    def renamed(self, **names: str) -> None:
        """Goes on knowing flags by names that they had once; --help is silent on them.

        Args:
          names: of flags, without dashes: what is called now what was the keyword.

        Raises:
          ValueError: no flag is called so now, or one has the old name.
        """
        flags = {name.lstrip("-") for name in self.spellings()}
        for old, new in names.items():
            if new not in flags or old in flags:
                raise ValueError(f"--{old} cannot be --{new}: flags are {flags}")
        self._renamed |= names

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does, which calls it for all ways to parse."""
        args = self._spelt(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def spellings(self) -> Iterator[str]:
        """The flags as --help has them, subcommands' too, each once."""
        seen = set()
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    seen.update(parser.spellings())
            seen.update(name for name in action.option_strings)
        yield from sorted(seen)

    def choices(self) -> dict[str, list[str]]:
        """What may follow a flag, for those where that is one of a few words."""
        found = {}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    found |= parser.choices()
            elif action.choices:
                values = [str(value) for value in action.choices]
                found |= dict.fromkeys(action.option_strings, values)
        return found

    def _spelt(self, args: Sequence[str]) -> list[str]:
        """Arguments with flags as they are called here; from "--" on nothing is."""
        known = {
            flag.lstrip("-").replace("-", "_"): flag
            for flag in self._option_string_actions
            if flag.startswith("--")
        }
        spelt, rest = [], iter(args)
        for argument in rest:
            if argument == "--":
                return [*spelt, argument, *rest]
            if argument.startswith("--"):
                name, equals, value = argument[2:].partition("=")
                name = name.replace("-", "_")
                flag = known.get(self._renamed.get(name, name))
                argument = f"{flag}{equals}{value}" if flag else argument
            spelt.append(argument)
        return spelt


def add_units(parser, about: str = "", flag: str = "--units", default=None) -> None:
    """Adds a flag for residual units of each block: "3 4 6 3", "3,4,6,3", or "50".

    Its value is a list, a depth, or None.

    Args:
      parser: a parser or a group of one.
      about: what else to say in --help, such as the default.
      flag: name of the flag.
      default: its value if it is not given.
    """
    parser.add_argument(
        flag,
        nargs="+",
        type=_numbers,
        action=_Units,
        default=default,
        metavar="N",
        help="residual units of each block, or a depth by name"
        + (f" ({about})" if about else ""),
    )


def _numbers(text):
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"numbers are expected, such as 3 4 6 3. Received: {text!r}"
        ) from None


class _Units(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        units = [number for numbers in values for number in numbers]
        setattr(namespace, self.dest, units[0] if len(units) == 1 else units)
