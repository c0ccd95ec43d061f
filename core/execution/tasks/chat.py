"""What a model is really given of a prompt: as written, or in the words of its chat template; one prompt, or a set of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from core.config import RunConfig, WorkloadConfig
from core.error_text import first_line
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import TASKS, LoadedModel

CHAT_TASK = "text-generation"
_INSTRUCT = re.compile(
    r"(?<![a-z])(instruct(ion|ed)?|chat|it|sft|dpo|rlhf|assistant|thinking|reasoning)(?![a-z])", re.IGNORECASE
)
"""In the names of models that were trained to answer. Base models often carry the template of their siblings."""


def has_template(loaded: LoadedModel) -> bool:
    """Whether the model's tokenizer says how a talk is written."""
    return bool(getattr(loaded.tokenizer, "chat_template", None))


def is_instruct(loaded: LoadedModel) -> bool:
    """Whether the model's name says that it was trained to answer."""
    names = (loaded.facts.name, loaded.facts.spec, str(getattr(loaded.model, "name_or_path", "") or ""))
    return any(_INSTRUCT.search(re.split(r"[/\\\\]", name)[-1]) for name in names)  # folders above it say nothing


def in_chat(loaded: LoadedModel, workload: WorkloadConfig) -> bool:
    """Whether prompts are put into the chat template: as asked, else for instruct models that have one.

    ``Refusal`` where it is asked for and there is none.
    """
    if workload.prompt_tokens is not None or loaded.facts.task != CHAT_TASK:
        return False
    if workload.chat and not has_template(loaded):
        raise Refusal(Reason("execution.no-chat-template", name=loaded.facts.name))
    return workload.chat if workload.chat is not None else has_template(loaded) and is_instruct(loaded)


def settled(config: RunConfig, loaded: LoadedModel) -> RunConfig:
    """The config with what was left to the model decided, so that the run says what was done."""
    return replace(config, workload=replace(config.workload, chat=in_chat(loaded, config.workload)))


def texts(loaded: LoadedModel, workload: WorkloadConfig) -> list[str]:
    """What is tokenised for each sequence of the batch, as the model is given it."""
    chat = in_chat(loaded, workload)
    prompts = workload.prompts or (workload.prompt,)
    if len(prompts) > workload.batch and workload.prompts:
        raise Refusal(Reason("execution.prompts-and-batch-differ", prompts_count=len(prompts), batch=workload.batch))
    given = [_in_template(prompt, loaded) if chat else prompt for prompt in prompts]
    return [given[row % len(given)] for row in range(workload.batch)]


def given(loaded: LoadedModel, workload: WorkloadConfig) -> tuple[str, ...]:
    """What the model is given, each text once; empty where that is one prompt as it was written, or no text."""
    written = tuple(dict.fromkeys(texts(loaded, workload))) if workload.prompt_tokens is None else ()
    return () if written == (workload.prompt,) or TASKS[loaded.facts.task].modality != "text" else written


def _in_template(prompt: str, loaded: LoadedModel) -> str:
    """The prompt as what the user says, up to where the answer begins."""
    tokenizer: Any = loaded.tokenizer
    talk = [{"role": "user", "content": prompt}]
    try:
        return str(tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False))
    except Exception as error:  # a template is a program, and raises what it likes
        said = first_line(error).rstrip(".:; ")[:200]
        raise Refusal(Reason("execution.chat-template-unusable", name=loaded.facts.name, said=said)) from error
