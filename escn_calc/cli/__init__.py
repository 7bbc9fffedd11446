"""The command ``escn``: one module for each subcommand, imported when the subcommand is used."""

from __future__ import annotations

from importlib import import_module

import click

from escn_calc import __version__
from escn_calc.errors import ESCNError

INTERRUPTED = 130

SUBCOMMANDS = {
    "models": ("escn_calc.cli.models", "List, show, fetch, convert and verify models."),
    "relax": ("escn_calc.cli.relax", "Relax the atomic positions of one structure."),
}
"""Module (it defines a click command of the subcommand's name) and one-line help of every subcommand."""


class RedError(click.ClickException):
    """An error of the package, shown to the user as one red line without a traceback."""

    def show(self, file: object = None) -> None:
        """Print the message to standard error."""
        message = " ".join(self.message.split())
        click.secho(f"Error: {message}", fg="red", err=True)


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None if there is none of that name."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command = getattr(import_module(SUBCOMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands with their one-line help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUBCOMMANDS[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        """Run a subcommand; errors of the package become one red line, Ctrl-C the exit status 130."""
        try:
            return super().invoke(ctx)
        except ESCNError as error:
            raise RedError(str(error)) from error
        except OSError as error:
            raise RedError(f"{error.strerror or error}: {error.filename}" if error.filename else str(error)) from error
        except KeyboardInterrupt:
            click.secho("Interrupted.", fg="red", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="escn")
def main() -> None:
    """Energies, forces and relaxations with eSCN models.

    Energies are in eV, lengths in Å, forces in eV/Å. Every command has its own --help. Exit status: 0 success,
    1 error, 2 wrong usage, 130 interrupted; further ones are listed where a command has them.
    """
