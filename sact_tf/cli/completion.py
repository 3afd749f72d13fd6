"""Completion of commands and flags for bash and zsh: prints a script.

    sact-tf completion bash > ~/.local/share/bash-completion/completions/sact-tf
    sact-tf completion zsh > ~/.sact-tf-completion  # and source it in ~/.zshrc

The script knows the commands of this installation; make it anew after an update.
"""

import argparse
import shlex

import sact_tf_command
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser

_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """\
_sact_tf() {{
  local command="${{COMP_WORDS[1]//_/-}}" current="${{COMP_WORDS[COMP_CWORD]}}"
  local previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={commands}
  else
    case "$command $previous" in
{choices}
    esac
    if [ -z "$words" ]; then
      case "$current" in -*) case "$command" in
{flags}
      esac ;; esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _sact_tf sact-tf
"""


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="which one you use")


def run(flags: argparse.Namespace) -> dict:
    """Makes the script."""
    commands = sact_tf_command.commands()
    words, choices = {}, {}
    for name in commands:
        parser = _parser(name)
        if parser is None:
            continue
        words[name] = [flag for flag in parser.spellings() if flag.startswith("--")]
        for flag, values in parser.choices().items():
            choices[f"{name} {flag}"] = values
    script = _SCRIPT.format(
        commands=shlex.quote(" ".join(commands)),
        flags=_cases(words, 8),
        choices=_cases(choices, 6),
    )
    return {"script": (_ZSH if flags.shell == "zsh" else "") + script}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The script."""
    return result["script"].rstrip()


def _parser(name):
    """Of a command; None where it has none of ours, or what it needs is missing."""
    try:
        return command_line.find(name.replace("-", "_")).parser()
    except (ImportError, AttributeError):
        return None


def _cases(words, indent):
    return "\n".join(
        f"{' ' * indent}{shlex.quote(case)}) words={shlex.quote(' '.join(found))} ;;"
        for case, found in words.items()
    )


COMMAND = command_line.Command("completion", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
