"""Which architectures transformers knows and which class does which task, read without importing torch.

Importing transformers' auto classes imports torch (3.7 s here), but their tables are literals in its source: parsing
those takes 20 ms.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import Refusal

_MODULES = {
    "CONFIG": "auto_mappings",
    "MODEL": "modeling_auto",
    "MODEL_FOR_CAUSAL_LM": "modeling_auto",
    "MODEL_FOR_MASKED_LM": "modeling_auto",
    "MODEL_FOR_TEXT_ENCODING": "modeling_auto",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION": "modeling_auto",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM": "modeling_auto",
}


def classes(table: str) -> Mapping[str, str]:
    """Class names by model type of one table, for example ``classes("MODEL_FOR_CAUSAL_LM")["gpt2"]``."""
    tables = _tables(_MODULES[table])
    return tables[f"{table}_MAPPING_NAMES"]


def is_known(model_type: str) -> bool:
    """Whether transformers itself has this architecture."""
    return model_type in classes("CONFIG")


def task_of(model_type: str, architecture: str | None, *, is_decoder: bool = False) -> tuple[str, str]:
    """Task and the class that will be loaded for it.

    Args:
        model_type: transformers' name of the architecture, e.g. ``llama``.
        architecture: the class that wrote the weights if known, e.g. ``LlamaForCausalLM``.
        is_decoder: an encoder architecture set up to generate (``is_decoder`` of its config).

    Raises:
        Refusal: it reads no text, or is an encoder-decoder.
    """
    causal, masked = classes("MODEL_FOR_CAUSAL_LM"), classes("MODEL_FOR_MASKED_LM")
    classifiers = classes("MODEL_FOR_SEQUENCE_CLASSIFICATION")
    named = architecture or ""
    if named.endswith("ForSequenceClassification"):
        return "classification", named
    if model_type in classes("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM"):
        raise Refusal(
            f"{named or model_type} is an encoder-decoder, which cannot be run yet; "
            "choose a text generator, an encoder or a classifier."
        )
    generates = named == causal.get(model_type) or named.endswith(("ForCausalLM", "LMHeadModel"))
    if generates or (not named and model_type in causal and (is_decoder or model_type not in masked)):
        return "text-generation", named or causal[model_type]
    if any(model_type in table for table in (masked, causal, classifiers, classes("MODEL_FOR_TEXT_ENCODING"))):
        return "embedding", classes("MODEL").get(model_type, named)
    if not is_known(model_type) and named:  # its own code, which the caller has decided to trust
        return "embedding", named
    raise Refusal(f"{named or model_type} does not read text alone; choose a text generator, a text encoder or a classifier.")


@cache
def _tables(module: str) -> dict[str, dict[str, str]]:
    found = importlib.util.find_spec("transformers")
    folders = found.submodule_search_locations if found else None
    source = Path(folders[0], "models", "auto", f"{module}.py") if folders else None
    if source is None or not source.is_file():  # a frozen build carries no sources
        imported = importlib.import_module(f"transformers.models.auto.{module}")
        return {name: _plain(value.items()) for name, value in vars(imported).items() if name.endswith("_MAPPING_NAMES")}
    tables = {}
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call):
            name = node.targets[0].id
            if any(name == f"{table}_MAPPING_NAMES" for table in _MODULES):
                tables[name] = _plain(ast.literal_eval(node.value.args[0]))
    return tables


def _plain(rows: Sequence[tuple[str, Any]] | Any) -> dict[str, str]:
    """Some entries name several classes; the first is the usual one."""
    return {key: value if isinstance(value, str) else value[0] for key, value in rows}
