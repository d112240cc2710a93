"""`bestiary`: the verbs. Everything heavy is imported inside the verb that needs it, so that `--help` is instant."""

import os
import sys
from collections.abc import Sequence

import click
import typer

from bestiary.cli import (
    data_commands,
    features_command,
    inspect_command,
    model_commands,
    proposals_command,
    run_commands,
    search_command,
)
from bestiary.cli.output import INTERRUPTED, emit, say
from bestiary.errors import BestiaryError

EXIT_CODES = """Exit codes: 0 done; 1 any other error; 2 usage; 3 data; 4 checkpoint; 5 training; 6 export; 7 a missing
extra; 8 `check` found errors; 130 interrupted."""

SPIN_COUNT = "1000"
"""How long an idle OpenMP thread spins. Where another program takes part of the processor, two threads that spin at
every barrier slow each other up to fortyfold; with short spinning they do not. Set before torch reads it, unless the
user has set it."""

app = typer.Typer(
    name="bestiary",
    help="The deep visual-recognition lineage, alive: train, measure and use every system on your own pictures.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
model_commands.register(app)
data_commands.register(app)
run_commands.register(app)
features_command.register(app)
inspect_command.register(app)
search_command.register(app)
proposals_command.register(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from bestiary import __version__

        typer.echo(f"bestiary {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can cause end in one plain message and a documented exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        code = app(words, standalone_mode=False)
    except BestiaryError as error:
        _fail(str(error), type(error).__name__, as_json)
        code = error.exit_code
    except click.exceptions.Abort:
        say("interrupted")
        code = INTERRUPTED
    except KeyboardInterrupt:
        say("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message(), "UsageError", as_json)  # type: ignore[attr-defined]
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, kind: str, as_json: bool) -> None:
    if as_json:
        emit({"error": {"kind": kind, "message": message}})
    say(f"error: {message}")


if __name__ == "__main__":
    main()
