"""Models of a named architecture with random weights, sized by options: ``arch:gpt2?n_layer=4&n_embd=96&n_head=4``.

The option ``task`` chooses the head (``arch:bert?task=question-answering``), and a name with a dot belongs to a part of the
config (``arch:llava?text_config.num_hidden_layers=4``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import psutil

from core import paths, torch_private
from core.config import ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models import experts, known, loading, positions
from core.models.base import Listing, LoadedModel, ModelFacts, sources
from core.models.files import CONTEXT_KEYS, blocks, first_number, text_part
from core.models.made_up import text_config_of
from core.models.memory import ITEM_BYTES, fit
from core.progress import Progress

if TYPE_CHECKING:
    import torch

TASK = "task"
"""The option that is not the config's own."""

REMEDY = "give options that fit each other, or another architecture"

SUGGESTED = {
    "gpt2": "GPT-2 124M, random weights",
    "bert": "BERT base 110M, random weights",
    "llama?hidden_size=576&intermediate_size=1536&num_hidden_layers=30&num_attention_heads=9&num_key_value_heads=3"
    "&vocab_size=49152": "Llama of SmolLM2-135M's shape, random weights",
    "t5": "T5 small 61M, random weights",
    "vit": "ViT base 86M, random weights",
    "whisper": "Whisper of the tiny one's shape, random weights",
}


def parse_spec(rest: str) -> tuple[str, dict[str, str]]:
    """Architecture and options of ``TYPE?key=value&...``; ``Refusal`` if they are written wrongly or it is unknown."""
    model_type, _, query = rest.partition("?")
    if not known.is_known(model_type):
        similar = difflib.get_close_matches(model_type, known.classes("CONFIG"), 3) or ["gpt2", "llama", "bert"]
        raise Refusal(Reason("models.no-architecture", model_type=paths.shown(model_type), similar=tuple(similar)))
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise Refusal(Reason("models.not-a-list-of-options", query=paths.shown(query))) from error
    return model_type, dict(pairs)


def make_config(model_type: str, options: Mapping[str, str]) -> Any:
    """The transformers config; every option must be a field of it and of its type. ``Refusal`` otherwise."""
    from transformers import AutoConfig

    standard = AutoConfig.for_model(model_type)
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key == TASK:
            continue
        if key == "num_labels":
            values[key] = _typed(model_type, key, text, 2)
            if options.get(TASK) == "question-answering" and values[key] != 2:
                raise Refusal(Reason("models.two-labels"))
            continue
        *parts, inner = key.split(".")
        owner, within = standard, values
        for part in parts:
            owner = _part(owner, part, inner)
            within = within.setdefault(part, {"model_type": owner.model_type} if owner.model_type else {})
        within[inner] = _value(owner.model_type, inner, text, owner)
    with loading.refusing(f"arch:{model_type} with these options", REMEDY), loading.quiet(Progress(), None):
        config = AutoConfig.for_model(model_type, **deepcopy(values))  # configs take what they are given apart
        return AutoConfig.for_model(model_type, **(values | _tokens_within(config, values)))


def _part(owner: Any, name: str, inner: str) -> Any:
    """That part of a config; ``Refusal`` if it has none of that name."""
    found = getattr(owner, name, None)
    if found is None or not hasattr(found, "attribute_map"):
        parts = [part for part, value in vars(owner).items() if hasattr(value, "attribute_map")]
        has = Reason("models.config-parts", parts=tuple(parts)) if parts else Reason("models.config-without-parts")
        raise Refusal(Reason("models.no-part-for-option", model_type=owner.model_type, name=name, inner=inner, has=has))
    return found


def _value(model_type: str, key: str, text: str, standard: Any) -> Any:
    """``text`` as the value of the option ``key`` of the config ``standard``; ``Refusal`` if it has none or not such a one."""
    from transformers import PreTrainedConfig

    fields = standard.to_dict()
    real = standard.attribute_map.get(key, key)
    if real not in fields or real in ("model_type", "architectures", "transformers_version"):
        common = PreTrainedConfig().to_dict()
        own = [name for name in fields if name not in common]
        hints = difflib.get_close_matches(key, [*own, *standard.attribute_map], 4, 0.4) or own[:6]
        raise Refusal(Reason("models.no-option", model_type=model_type, key=paths.shown(key), hints=tuple(hints)))
    return _typed(model_type, key, text, fields[real])


def _tokens_within(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The standard special tokens of a 50,000 token vocabulary do not exist in a small one: what is set instead.

    Ends and beginnings are left out, tokens that stand for an image or a sound become the last ones, lists lose what is beyond.
    The parts of a config have their own, and some of them cannot do without.
    """
    instead: dict[str, Any] = {}
    for name, part in vars(config).items():
        within = given.get(name)
        if hasattr(part, "attribute_map") and isinstance(within, dict):
            inner = {key: 0 if value is None else value for key, value in _tokens_within(part, within).items()}
            instead[name] = within | inner
    size = getattr(text_config_of(config), "vocab_size", None)
    if isinstance(size, int):
        beyond = {key: value for key, value in config.to_dict().items() if "token" in key and key not in given}
        instead |= _replaced(beyond, size)
    return instead


def _replaced(tokens: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Those of ``tokens`` that a vocabulary of ``size`` does not have, each with what stands in its place."""
    instead: dict[str, Any] = {}
    last = size
    for key, value in tokens.items():
        if isinstance(value, list) and all(isinstance(token, int) for token in value):
            if any(token >= size for token in value):
                instead[key] = [token for token in value if token < size] or None
        elif not isinstance(value, int) or value < size:
            continue
        elif key in ("bos_token_id", "eos_token_id", "pad_token_id", "forced_eos_token_id", "forced_bos_token_id"):
            instead[key] = None
        elif key == "decoder_start_token_id":
            instead[key] = 0
        elif key.endswith(("_token_id", "_token_index")):
            last -= 1
            instead[key] = max(last, 0)
    return instead


def _typed(model_type: str, key: str, text: str, standard: Any) -> Any:
    """``text`` as the type of the option's standard value."""
    try:
        if isinstance(standard, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(standard, int | float):
            return type(standard)(text)
        if isinstance(standard, str):
            return text
    except (ValueError, KeyError) as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(standard)]
        raise Refusal(
            Reason(
                "models.option-value-unsuitable",
                key=key,
                text=paths.shown(text),
                model_type=model_type,
                kind=kind,
                standard=standard,
            )
        ) from error
    try:
        return json.loads(text)
    except ValueError:
        return text


def libraries_are_here() -> bool:
    """Whether transformers' models are wholly imported already, so that asking them costs no import of torch."""
    return torch_private.wholly_imported("transformers.models.auto.modeling_auto") is not None


def exact_facts(config: ModelConfig, rest: str) -> ModelFacts:
    """Facts counted on the model itself, built without memory (on the meta device). Needs torch."""
    import torch

    model_type, options = parse_spec(rest)
    settings = make_config(model_type, options)
    task, architecture = task_of(model_type, options, is_decoder=bool(getattr(settings, "is_decoder", False)))
    with torch.device("meta"):
        model = _build(settings, task, architecture, config, rest)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    values = loading.common_names(settings)
    weight_bytes = parameters * ITEM_BYTES[config.dtype]
    length, soft = positions.of_model(model, first_number(text_part(values), CONTEXT_KEYS), None)
    return ModelFacts(
        spec=config.spec,
        name=_name(model_type, options),
        architecture=type(model).__name__,
        task=task,
        parameters=parameters,
        layers=blocks(values),
        dtype=config.dtype,
        weight_bytes=weight_bytes,
        file_bytes=None,
        context_length=length,
        context_is_soft=soft,
        has_tokenizer=False,
        stored_as="random weights",
        load_bytes=weight_bytes,
        active_parameters=experts.active_of(model, text_part(values)),
    )


def task_of(model_type: str, options: Mapping[str, str], *, is_decoder: bool) -> tuple[str, str]:
    """Task and class for an architecture, by its option ``task`` or else by what it is mostly used for."""
    return known.task_of(model_type, None, is_decoder=is_decoder, task=options.get(TASK))


def _build(settings: Any, task: str, architecture: str, config: ModelConfig, rest: str) -> torch.nn.Module:
    import torch
    import transformers

    with loading.refusing(f"arch:{rest}", REMEDY):
        settings.architectures = [architecture]  # else an auto class with several to choose from fails
        made = getattr(transformers, loading.auto_class(task, architecture))
        return torch_private.from_config(made)(settings, dtype=getattr(torch, config.dtype))


def _name(model_type: str, options: Mapping[str, str]) -> str:
    return f"{model_type} ({', '.join(f'{key}={value}' for key, value in options.items())})" if options else model_type


@contextmanager
def _checking(progress: Progress) -> Iterator[None]:
    """Looks at ``progress`` before every tensor operation, so that filling billions of weights can be cancelled."""
    from torch.overrides import TorchFunctionMode

    class Checking(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            progress.check()
            return func(*args, **(kwargs or {}))

    with Checking():
        yield


@sources.register
class Architecture:
    """An architecture of transformers with random weights: speed and memory are real, the text is not."""

    id = "arch"
    title = "Random weights"
    hint = "TYPE or TYPE?key=value&key=value (task=… chooses the head)"

    def listed(self) -> list[Listing]:
        """A few of moderate size; any other that transformers has works too."""
        return [Listing(f"{self.id}:{rest}", title, True) for rest, title in SUGGESTED.items()]

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """Exact once transformers' models are imported; before that the sizes are unknown (None)."""
        if libraries_are_here():
            return exact_facts(config, rest)
        model_type, options = parse_spec(rest)
        task, architecture = task_of(model_type, options, is_decoder=options.get("is_decoder", "").lower() in ("true", "1"))
        return ModelFacts(
            spec=config.spec,
            name=_name(model_type, options),
            architecture=architecture,
            task=task,
            parameters=None,
            layers=None,
            dtype=config.dtype,
            weight_bytes=None,
            file_bytes=None,
            context_length=None,
            has_tokenizer=False,
            stored_as="random weights",
        )

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """Build with weights drawn from ``config.seed``: the same on every device, since they are drawn on the CPU."""
        import torch

        sketch = self.describe(config, rest)
        loading.import_libraries(progress, sketch.task, sketch.architecture)
        with loading.quiet(progress, Reason("models.counting-weights")):
            facts = exact_facts(config, rest)
        # Asked here again: before torch was there, describe() could not know.
        fits = fit(facts, config.dtype, psutil.virtual_memory().available)
        if not fits.fits and not config.force:
            raise Refusal(fits.sentence, can_override=True)
        watch = loading.Stopwatch()
        filling = Reason("models.filling-weights")
        progress.report(filling)
        model_type, options = parse_spec(rest)
        with (
            loading.quiet(progress, filling),
            torch.random.fork_rng(devices=[]),
            _checking(progress),
        ):
            torch.manual_seed(config.seed)
            model = _build(make_config(model_type, options), facts.task, sketch.architecture, config, rest)
        return loading.finish(model.to(device), None, config, facts, watch)
