"""What mkdocs-click leaves out of a command: its epilog, which has the exit statuses."""

from importlib import import_module
from inspect import cleandoc
from typing import Any

from escn_calc.cli import SUBCOMMANDS


def on_startup(**_: Any) -> None:
    """Put the epilog of every command below its help."""
    for name, (module, _words) in SUBCOMMANDS.items():
        command = getattr(import_module(module), name)
        command.help = "\n\n".join(filter(None, (cleandoc(command.help), command.epilog)))
