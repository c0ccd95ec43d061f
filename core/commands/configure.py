"""From switches to a ``RunConfig`` or ``ABTestConfig``: a mistake that can be seen without loading anything is refused here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from core import paths
from core.commands.switches import OFF, ON
from core.config import (
    ABTestConfig,
    ModelConfig,
    PassConfig,
    QualityConfig,
    RunConfig,
    TargetConfig,
    WorkloadConfig,
    workload_fields,
)
from core.errors import Refusal
from core.prompt_set import read_prompts

SIDES = "abcdefgh"
"""The letters of an A/B test's sides, as switches name them: the first is what the others are compared with."""

NO_PASS = "none"


def run_config(args: argparse.Namespace) -> RunConfig:
    """The run that ``tickscope run`` was asked for; ``Refusal`` for anything that cannot be."""
    try:
        passes = tuple(parse_pass(text) for text in args.passes)
        config = RunConfig(
            _model(args, args.dtype),
            passes,
            TargetConfig(args.target, args.threads),
            _workload(args),
            _profilers(args),
            args.name,
            _quality(args, passes),
        )
    except Refusal:
        raise
    except ValueError as error:
        raise Refusal(str(error)) from error
    return check(config)


def trial_config(args: argparse.Namespace) -> ABTestConfig:
    """The A/B test that ``tickscope ab`` was asked for; ``Refusal`` for anything that cannot be."""
    asked = {side: getattr(args, side) for side in SIDES}
    given = [side for side in SIDES[1:] if asked[side] is not None]
    if args.aa and given:
        raise Refusal(f"--aa runs side A against itself, so --{given[0]} has no place beside it; leave one of them out.")
    if not args.aa and not given:
        raise Refusal(
            "An A/B test needs something to compare with: give --b with its passes (or none), or --aa for the noise floor."
        )
    if given and given != list(SIDES[1 : 1 + len(given)]):
        raise Refusal(f"--{given[-1]} is given without the sides before it; name sides in the order of their letters.")
    try:
        sides = [check(_side(args, side, asked[side] or ())) for side in ("a", *given)]
        return ABTestConfig(tuple(sides * 2 if args.aa else sides), args.most_rounds, args.most_seconds)
    except Refusal:
        raise
    except ValueError as error:
        raise Refusal(str(error)) from error


def _side(args: argparse.Namespace, side: str, texts: Sequence[str]) -> RunConfig:
    dtype, threads = getattr(args, f"dtype_{side}"), getattr(args, f"threads_{side}")
    passes = parse_passes(texts, f"--{side}")
    return RunConfig(
        _model(args, args.dtype if dtype is None else dtype),
        passes,
        TargetConfig(args.target, args.threads if threads is None else threads),
        _workload(args),
        _profilers(args),
        quality=_quality(args, passes),
    )


def _model(args: argparse.Namespace, dtype: str) -> ModelConfig:
    return ModelConfig(args.model, dtype, args.seed, args.trust_remote_code, args.allow_pickle, args.force)


def _workload(args: argparse.Namespace) -> WorkloadConfig:
    """The fields that have switches, as given, and the prompts from wherever they are; a set of them makes a batch."""
    prompts = read_prompts(args.prompt_set) if args.prompt_set is not None else None
    given = {name: value for name, value in vars(args).items() if name in workload_fields()}
    batch = args.batch if args.batch is not None else len(prompts or ("",))
    return WorkloadConfig(**{**given, "prompt": _prompt(args), "prompts": prompts, "batch": batch})


def _profilers(args: argparse.Namespace) -> tuple[str, ...]:
    if args.profilers is None:
        return RunConfig(ModelConfig(args.model)).profilers
    return tuple(dict.fromkeys(name for name in args.profilers if name != "none"))


def _quality(args: argparse.Namespace, passes: Sequence[PassConfig]) -> QualityConfig | None:
    """On what quality is measured; None where it is switched off, or where there are no passes that could cost any."""
    if args.quality == OFF:
        if args.labels is not None:
            raise Refusal("--labels is for the quality cost, which --quality off switches off; leave one of them out.")
        return None
    asked = QualityConfig(None if args.quality == ON else args.quality, args.labels, args.quality_tokens)
    return asked if passes else None


def check(config: RunConfig) -> RunConfig:
    """The run; refuses what does not exist: a target, an instrument, a kind of model, or a file to measure on."""
    from core.execution.eval_data import read_material
    from core.models import catalog
    from core.targets.base import targets
    from profilers.base import instruments

    known = instruments()
    for name in config.profilers:
        if name not in known:
            raise Refusal(f"There is no profiler {name!r}; there is {', '.join(sorted(known))}, or none.")
    try:
        targets.get(config.target.id)
    except ValueError as error:
        raise Refusal(str(error)) from error
    catalog.parse(config.model.spec)
    if config.quality is not None:
        read_material(config.quality)
    return config


def parse_pass(text: str) -> PassConfig:
    """``ID[:key=value,...]`` as a pass with its options typed; ``Refusal`` for one that there is not."""
    return _chosen(*split_pass(text))


def _chosen(pass_id: str, options: dict[str, str]) -> PassConfig:
    from core.pass_api.options import typed

    return typed(PassConfig(pass_id, options))


def split_pass(text: str) -> tuple[str, dict[str, str]]:
    """The id and the options as text. A part without ``=`` belongs to the value before it: ``layer_drop:layers=20-24,28``."""
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
    return pass_id.strip(), options


def parse_passes(texts: Sequence[str], switch: str) -> tuple[PassConfig, ...]:
    """The passes of one side: ``PASS PASS`` or ``PASS,PASS``, the last of a text with options; ``none`` for no pass at all.

    A comma before the first colon separates passes, one after it belongs to the options: ``bfloat16,layer_drop:layers=3,5``.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for text in texts:
        names, colon, options = text.partition(":")
        *plain, last = [name.strip() for name in names.split(",")]
        found += [split_pass(name) for name in plain]
        found.append(split_pass(f"{last}{colon}{options}"))
    if any(pass_id == NO_PASS for pass_id, _ in found):
        if len(found) > 1:
            raise Refusal(f"{switch} names {NO_PASS} beside other passes; give one or the other.")
        return ()
    return tuple(_chosen(*one) for one in found)


def _prompt(args: argparse.Namespace) -> str:
    if args.prompt_file is not None:
        return read_prompt(args.prompt_file)
    return WorkloadConfig().prompt if args.prompt is None else str(args.prompt)


def read_prompt(path: Path) -> str:
    """The text of a prompt file; ``Refusal`` where there is none that can be read as UTF-8."""
    try:
        text = paths.read_text(path)
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
