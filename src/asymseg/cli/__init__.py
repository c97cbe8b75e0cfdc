"""The command line: each command parses and calls one function. Nothing heavy is imported before a command runs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from io import TextIOWrapper

import cyclopts
import pydantic
from cyclopts import Parameter

from asymseg.cli.benchmark import benchmark
from asymseg.cli.check import check
from asymseg.cli.compare import compare
from asymseg.cli.evaluate import evaluate
from asymseg.cli.export import export
from asymseg.cli.help import Flowing
from asymseg.cli.importing import import_
from asymseg.cli.models import models
from asymseg.cli.predict import predict
from asymseg.cli.sample import sample
from asymseg.cli.serve import serve
from asymseg.cli.terminal import fail
from asymseg.cli.train import train
from asymseg.config import explain
from asymseg.errors import AsymsegError

app = cyclopts.App(
    name="asymseg",
    help="Semantic segmentation with asymmetric non-local attention: train, measure, predict.",
    version=lambda: version("asymseg"),
    default_parameter=Parameter(name_transform=lambda name: name, negative_iterable=(), consume_multiple=True),
    help_format="plaintext",
    help_formatter=Flowing(),
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)
for command in (sample, check, train, evaluate, compare, predict, export, serve, models):
    app.command(command)
app.command(import_, name="import")
app.command(benchmark)


def _with_truths(arguments: list[str]) -> list[str]:
    """`--train.x true` as `--train.x=true`: of a setting that is on or off, cyclopts takes no word after it."""
    given = list[str]()
    for word in arguments:
        setting = given[-1] if given else ""
        if word in ("true", "false") and setting.startswith("--") and "." in setting and "=" not in setting:
            given[-1] += f"={word}"
        else:
            given.append(word)
    return given


@contextmanager
def _for_readers_who_leave() -> Iterator[None]:
    """Ends without a word where nobody reads on, as in `asymseg models | head -1`, with the code that shells give."""
    try:
        yield
    finally:
        of_a_pipe = isinstance(sys.exception(), BrokenPipeError)
        try:
            print(end="\n" if of_a_pipe else "", flush=True)  # fails too where that pipe was standard output
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
            sys.exit(141)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. A user's mistake prints one line and exits with 2; a bug keeps its traceback and exits with 1."""
    if isinstance(sys.stdout, TextIOWrapper):  # a name it cannot say is no reason to die; standard error knows that
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _for_readers_who_leave():
            app(_with_truths(sys.argv[1:] if arguments is None else arguments), exit_on_error=False, print_error=False)
    except AsymsegError as error:
        fail(str(error))
    except cyclopts.UnusedCliTokensError as error:
        left = " ".join((error.unused_tokens or ())[:3])
        command = " ".join(error.command_chain or ())
        fail(f"{left}: more than {command} takes; asymseg {command} --help says what stands where")
    except cyclopts.CycloptsError as error:
        cause = error.__cause__
        fail(explain(cause) if isinstance(cause, pydantic.ValidationError) else str(error))
    except pydantic.ValidationError as error:
        fail(explain(error))
    except KeyboardInterrupt:
        fail(
            "stopped; a training run goes on from its last checkpoint by --resume, images "
            "that were begun with it do too, a raster where it was by the same command again",
            code=130,
        )
