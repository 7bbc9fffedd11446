"""The command ``escn``: one module for each subcommand, imported when the subcommand is used."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import click

from escn_calc import __version__
from escn_calc.errors import ESCNError

INTERRUPTED = 130
TERMINATED = 143

SUBCOMMANDS = {
    "bench": ("escn_calc.cli.bench", "Measure how fast a model is on this machine."),
    "evaluate": ("escn_calc.cli.evaluate", "Compare a model with labelled structures: metrics, tables, plots."),
    "export": ("escn_calc.cli.screen_export", "Write a table of the results of a screening campaign."),
    "md": ("escn_calc.cli.md", "Molecular dynamics of one structure."),
    "models": ("escn_calc.cli.models", "List, show, fetch, convert and verify models."),
    "relax": ("escn_calc.cli.relax", "Relax the atomic positions of one structure, or of many together."),
    "report": ("escn_calc.cli.report", "Show a screening campaign as one page: rankings, plots, structures, methods."),
    "screen": ("escn_calc.cli.screen", "Screen adsorbates on surfaces: placements, energies, anomalies."),
    "train": ("escn_calc.cli.train", "Train a model, or fine-tune one, on labelled structures."),
    "vibrations": ("escn_calc.cli.vibrations", "Vibrational modes and harmonic free energy of an adsorbate."),
}
"""Module (it defines a click command of the subcommand's name) and one-line help of every subcommand."""


class RedError(click.ClickException):
    """An error of the package, shown to the user as one red line without a traceback."""

    def show(self, file: object = None) -> None:
        """Print the message to standard error."""
        message = " ".join(self.message.split())
        click.secho(f"Error: {message}", fg="red", err=True)


class Terminated(KeyboardInterrupt):
    """The process has been asked to end with SIGTERM."""


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
        """Run a subcommand.

        Errors of the package become one red line, its warnings one yellow line each, Ctrl-C the exit status 130 and
        SIGTERM 143. A broken pipe is left to click, which then ends quietly.
        """
        try:
            with _warnings_as_notes(), _sigterm_as_interrupt():
                return super().invoke(ctx)
        except ESCNError as error:
            raise RedError(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RedError(f"{error.strerror or error}: {error.filename}" if error.filename else str(error)) from error
        except Terminated:
            click.secho("Terminated.", fg="red", err=True)
            ctx.exit(TERMINATED)
        except KeyboardInterrupt:
            click.secho("Interrupted.", fg="red", err=True)
            ctx.exit(INTERRUPTED)


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show warnings of this package as one yellow line on standard error, all others as they are."""
    with warnings.catch_warnings():
        show_as_usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: object) -> None:
            if category.__module__.startswith("escn_calc."):
                click.secho(f"Note: {' '.join(str(message).split())}", fg="yellow", err=True)
            else:
                show_as_usual(message, category, *place)  # type: ignore[arg-type]

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, the announcement of batch systems, like Ctrl-C; more of them do not stop the writing of results.

    A subcommand may handle the interrupt and end by passing a ``KeyboardInterrupt`` on; it leaves as ``Terminated``.
    """
    received = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if received:
            raise Terminated from interrupt
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="escn")
def main() -> None:
    """Energies, forces and relaxations with eSCN models.

    Energies are in eV, lengths in Å, forces in eV/Å. Every command has its own --help. Exit status: 0 success,
    1 error, 2 wrong usage, 130 interrupted, 143 terminated; further ones are listed where a command has them.
    """
