"""Switches that more than one command has."""

from __future__ import annotations

import argparse
from pathlib import Path

from core import paths
from core.commands import workload_arguments
from core.config import DTYPES, EXECUTORS, ModelConfig, QualityConfig, RunConfig, WorkloadConfig
from core.errors import Refusal

AUTO = "auto"
ON, OFF = "on", "off"


def path_argument(text: str) -> Path:
    """A path as typed; whether there is such a file is asked by whoever opens it."""
    try:
        return paths.typed(text)
    except Refusal as refusal:
        raise argparse.ArgumentTypeError(str(refusal).rstrip(".")) from refusal


def count_or_auto(text: str) -> int | None:
    """A whole number, or None for ``auto`` (how many is then decided while measuring)."""
    if text.strip().lower() == AUTO:
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor {AUTO}") from None


def model_switches(group: argparse._ArgumentGroup) -> None:
    """Which model, and what may be done to load it."""
    group.add_argument(
        "--model", required=True, metavar="SPEC", help="package:NAME, a folder, a .gguf file, hub:ORG/NAME or arch:TYPE"
    )
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="how weights are loaded (default: float32)")
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model: it can do anything"
    )
    group.add_argument("--allow-pickle", action="store_true", help="load pickled weights: a malicious file can run any code")
    group.add_argument("--force", action="store_true", help="load although the model does not seem to fit")


def target_switches(group: argparse._ArgumentGroup) -> None:
    """Where to run."""
    group.add_argument("--target", default="cpu", metavar="ID", help="where to run (default: cpu)")
    group.add_argument("--threads", type=int, metavar="N", help="processor threads (default: torch's)")
    group.add_argument(
        "--executor",
        choices=EXECUTORS,
        default=EXECUTORS[0],
        help="local: in this process (default); child: in a process of its own, whose crash costs the run alone",
    )


def workload_switches(group: argparse._ArgumentGroup, new_tokens: int) -> None:
    """What is asked, but for how often."""
    asked = WorkloadConfig()
    prompt = group.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help=f"what to ask (default: {asked.prompt!r})")
    prompt.add_argument("--prompt-file", type=path_argument, metavar="F", help="read the prompt from a UTF-8 text file")
    prompt.add_argument(
        "--prompt-set",
        type=path_argument,
        metavar="F",
        help='different prompts in one batch: a text file with one a line, or .jsonl with a "prompt" in each',
    )
    prompt.add_argument("--prompt-tokens", type=int, metavar="N", help="N random tokens instead of a prompt")
    group.add_argument("--new-tokens", type=int, default=new_tokens, metavar="N", help=f"default: {new_tokens}")
    group.add_argument(
        "--chat",
        action=argparse.BooleanOptionalAction,
        help="put prompts into the model's chat template (default: for instruct models that have one)",
    )
    group.add_argument("--batch", type=int, metavar="N", help=f"default: {asked.batch}, or as many as the prompt set holds")
    group.add_argument(
        "--warmup",
        type=count_or_auto,
        metavar="N|auto",
        help="requests that never count; auto: until requests get no faster, 10 seconds at most (default)",
    )
    group.add_argument("--seed", type=int, default=asked.seed, metavar="N", help="of random tokens and random weights")
    workload_arguments.add(group)


def observation_switches(group: argparse._ArgumentGroup) -> None:
    """Which instruments, and JSON."""
    default = ", ".join(RunConfig(ModelConfig("package:any")).profilers)
    group.add_argument(
        "--profiler",
        dest="profilers",
        action="append",
        metavar="ID",
        help=f"instrument, again for more; none for none (default: {default})",
    )
    group.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON instead of the report, or into FILE beside it"
    )


def quality_switches(group: argparse._ArgumentGroup) -> None:
    """On what the quality cost of passes is measured."""
    tokens = QualityConfig.tokens
    group.add_argument(
        "--quality",
        default=ON,
        metavar="on|off|FILE",
        help="what passes cost in quality, on the text that comes along or on a UTF-8 text FILE (default: on, where there "
        "are passes)",
    )
    group.add_argument(
        "--quality-tokens", type=int, default=tokens, metavar="N", help=f"tokens of the text that are read (default: {tokens})"
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="accuracy of a classifier too: CSV with the columns text (or image) and label, or JSONL with those keys",
    )
