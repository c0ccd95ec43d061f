"""Switches that more than one command has."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core import paths
from core.config import DTYPES, ModelConfig, QualityConfig, RunConfig, WorkloadField, workload_fields
from core.errors import Refusal
from core.execution.executors.base import DEFAULT, listed

AUTO = "auto"
ON, OFF = "on", "off"


def path_argument(text: str) -> Path:
    """A path as typed; whether there is such a file is asked by whoever opens it."""
    try:
        return paths.typed(text)
    except Refusal as refusal:
        raise argparse.ArgumentTypeError(str(refusal).rstrip(".")) from refusal


def number_or_auto(kind: type) -> Callable[[str], Any]:
    """What reads a number, or None for ``auto`` (which is then decided by program or model)."""
    noun = "a whole number" if kind is int else "a number"

    def read(text: str) -> Any:
        if text.strip().lower() == AUTO:
            return None
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither {noun} nor {AUTO}") from None

    return read


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
        choices=[one.id for one in listed()],
        default=DEFAULT,
        help=f"{'; '.join(f'{one.id}: {one.title.lower()}' for one in listed())} (default: {DEFAULT})",
    )


def workload_switches(group: argparse._ArgumentGroup, new_tokens: int, *, repeats: bool) -> None:
    """What is asked, a switch for each field of a workload; ``repeats``: also how often."""
    known = workload_fields()
    prompt = group.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help=f"what to ask (default: {known['prompt'].default!r})")
    prompt.add_argument("--prompt-file", type=path_argument, metavar="F", help="read the prompt from a UTF-8 text file")
    prompt.add_argument(
        "--prompt-set",
        type=path_argument,
        metavar="F",
        help='different prompts in one batch: a text file with one a line, or .jsonl with a "prompt" in each',
    )
    defaults = {"new_tokens": new_tokens, "batch": None}  # a set of prompts says itself how many
    for one in known.values():
        if one.metavar and (repeats or one.name != "repeats"):
            instead = one.name in known["prompt"].unless
            _add_field(prompt if instead else group, one, defaults.get(one.name, one.default))


def _add_field(group: argparse._ActionsContainer, one: WorkloadField, default: Any) -> None:
    """The switch of one field, as it is declared."""
    name = f"--{one.name.replace('_', '-')}"
    usual = default if default is not None else one.default if one.default is not None else one.none
    told = f"{one.explained[:1].lower()}{one.explained[1:]}".replace("%", "%%")
    told += f" (default: {usual})" if usual not in ("", None) and (one.default is not None or one.none == AUTO) else ""
    if one.kind is bool:
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=told)
        return
    kind = number_or_auto(one.kind) if one.none == AUTO else one.kind
    group.add_argument(name, type=kind, default=default, metavar=one.metavar, help=told)


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
