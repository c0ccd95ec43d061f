"""From switches to a ``RunConfig``: every mistake that can be seen without loading anything is refused here."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Refusal


def run_config(args: argparse.Namespace) -> RunConfig:
    """The run that ``tickscope run`` was asked for; ``Refusal`` for anything that cannot be."""
    try:
        workload = WorkloadConfig(
            prompt=_prompt(args),
            prompt_tokens=args.prompt_tokens,
            new_tokens=args.new_tokens,
            batch=args.batch,
            repeats=args.repeats,
            warmup=args.warmup,
            seed=args.seed,
        )
        model = ModelConfig(args.model, args.dtype, args.seed, args.trust_remote_code, args.allow_pickle, args.force)
        passes = tuple(parse_pass(text) for text in args.passes)
        config = RunConfig(model, passes, TargetConfig(args.target, args.threads), workload, name=args.name)
        if args.profilers is not None:
            chosen = dict.fromkeys(name for name in args.profilers if name != "none")
            config = RunConfig(model, passes, config.target, workload, tuple(chosen), args.name)
    except Refusal:
        raise
    except ValueError as error:
        raise Refusal(str(error)) from error
    check(config)
    return config


def check(config: RunConfig) -> None:
    """Refuse what does not exist: a pass or its option, a target, an instrument, a kind of model."""
    from core.models import catalog
    from core.passes import plan
    from core.targets.base import targets
    from profilers.base import instruments

    for choice in config.passes:
        plan.parse_options(plan.get(choice.id), choice.options)
    known = instruments()
    for name in config.profilers:
        if name not in known:
            raise Refusal(f"There is no profiler {name!r}; there is {', '.join(sorted(known))}, or none.")
    try:
        targets.get(config.target.id)
    except ValueError as error:
        raise Refusal(str(error)) from error
    catalog.parse(config.model.spec)


def parse_pass(text: str) -> PassConfig:
    """``ID[:key=value,...]``. A part without ``=`` belongs to the value before it: ``layer_drop:layers=20-24,28``."""
    pass_id, colon, rest = text.partition(":")
    if not pass_id:
        raise Refusal(f"--pass {text!r} names no pass; write it as ID or ID:key=value,key=value.")
    options: dict[str, str] = {}
    name = ""
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if equals:
            name = key.strip()
            options[name] = value
        elif name:
            options[name] += f",{part}"
        else:
            raise Refusal(f"--pass {text!r}: {part!r} is no key=value; write it as ID:key=value,key=value.")
    return PassConfig(pass_id.strip(), options)


def _prompt(args: argparse.Namespace) -> str:
    if args.prompt_file is not None:
        return read_prompt(args.prompt_file)
    return WorkloadConfig().prompt if args.prompt is None else str(args.prompt)


def read_prompt(path: Path) -> str:
    """The text of a prompt file; ``Refusal`` where there is none that can be read as UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise Refusal(f"There is no prompt file {path}; check the path.") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{path} is not a UTF-8 text file; save the prompt as plain text.") from error
    except OSError as error:
        raise Refusal(
            f"The prompt file {path} cannot be read ({error.strerror}); check the path and its permissions."
        ) from error
    if not text.strip():
        raise Refusal(f"The prompt file {path} is empty; write a prompt into it, or give --prompt-tokens.")
    if "\0" in text:
        raise Refusal(f"{path} is not a text file; save the prompt as plain UTF-8 text.")
    return text
