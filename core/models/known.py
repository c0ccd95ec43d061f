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
from core.messages.reason import Reason

TABLES: Mapping[str, tuple[str, ...]] = {
    "text-generation": ("MODEL_FOR_CAUSAL_LM",),
    "embedding": ("MODEL",),
    "classification": ("MODEL_FOR_SEQUENCE_CLASSIFICATION",),
    "token-classification": ("MODEL_FOR_TOKEN_CLASSIFICATION",),
    "question-answering": ("MODEL_FOR_QUESTION_ANSWERING",),
    "seq2seq": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM",),
    "image-classification": ("MODEL_FOR_IMAGE_CLASSIFICATION",),
    "image-text": ("MODEL_FOR_IMAGE_TEXT_TO_TEXT",),
    "speech": ("MODEL_FOR_SPEECH_SEQ_2_SEQ",),
    "speech-ctc": ("MODEL_FOR_CTC",),
    "audio-classification": ("MODEL_FOR_AUDIO_CLASSIFICATION",),
    "object-detection": ("MODEL_FOR_OBJECT_DETECTION",),
    "image-segmentation": (
        "MODEL_FOR_SEMANTIC_SEGMENTATION",
        "MODEL_FOR_UNIVERSAL_SEGMENTATION",
        "MODEL_FOR_INSTANCE_SEGMENTATION",
        "MODEL_FOR_IMAGE_SEGMENTATION",
    ),
    "depth-estimation": ("MODEL_FOR_DEPTH_ESTIMATION",),
    "image-feature-extraction": ("MODEL_FOR_IMAGE",),
    "audio-feature-extraction": ("MODEL",),
    "forward": (
        "MODEL_FOR_VISUAL_QUESTION_ANSWERING",
        "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION",
        "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION",
        "MODEL_FOR_MASK_GENERATION",
        "MODEL_FOR_TEXT_TO_WAVEFORM",
        "MODEL_FOR_TEXT_TO_SPECTROGRAM",
        "MODEL",
    ),
}
"""The tables of transformers that name the class of each task's models; the first that knows an architecture counts."""

_OTHERS = ("CONFIG", "MODEL_FOR_MASKED_LM", "MODEL_FOR_TEXT_ENCODING", "MODEL_FOR_MULTIMODAL_LM")
_MODULES = {
    "CONFIG": "auto_mappings",
    **{table: "modeling_auto" for tables in TABLES.values() for table in tables},
    **dict.fromkeys(_OTHERS[1:], "modeling_auto"),
}

_HEADS = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForQuestionAnsweringSimple": "question-answering",
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForCTC": "speech-ctc",
}
"""Tasks by the ending of a class name."""

_SPEECH = {"whisper", "moonshine", "speech_to_text"}
"""Of the speech models those that are asked with sound alone; the others want words or a target language beside it."""

_NO_TEXT_TO_TEXT = {"audioflamingo3", "musicflamingo", "encoder-decoder"}
_NO_IMAGE_TO_TEXT = {"pi0", "evolla", "udop", "diffusion_gemma", "pp_formulanet", "pix2struct", "vision-encoder-decoder"}
"""Models that transformers lists under a task but that want more or other inputs than ours for it."""


def classes(table: str) -> Mapping[str, str]:
    """Class names by model type of one table, for example ``classes("MODEL_FOR_CAUSAL_LM")["gpt2"]``."""
    tables = _tables(_MODULES[table])
    return tables[f"{table}_MAPPING_NAMES"]


def is_known(model_type: str) -> bool:
    """Whether transformers itself has this architecture."""
    return model_type in classes("CONFIG")


def tasks_of(model_type: str) -> dict[str, str]:
    """Every task that models of this architecture can be given, with the class for it."""
    found = {task: named for task in TABLES if (named := _class_for(task, model_type)) is not None}
    if model_type in _no_text_to_text():
        found.pop("seq2seq", None)
    if model_type in _NO_IMAGE_TO_TEXT:
        found.pop("image-text", None)
    if model_type not in _SPEECH:
        found.pop("speech", None)
    if "speech" in found or found.get("text-generation") == found.get("image-text"):
        found.pop("text-generation", None)  # a decoder that is nothing without its other half
    if model_type in classes("MODEL_FOR_TEXT_TO_WAVEFORM"):
        found = {task: named for task, named in found.items() if task == "forward"}  # its words are sounds
    encoder = classes("MODEL_FOR_TEXT_ENCODING").get(model_type)
    if encoder is not None:
        found["embedding"] = encoder
    elif not _encodes_text(model_type, found):
        found.pop("embedding", None)
    if found.get("image-feature-extraction") != classes("MODEL").get(model_type):
        found.pop("image-feature-extraction", None)  # only a part of the model sees
    if "speech" in found or not {"speech-ctc", "audio-classification"} & found.keys():
        found.pop("audio-feature-extraction", None)
    return found


def _class_for(task: str, model_type: str) -> str | None:
    """The class of this architecture for a task, by transformers' tables alone."""
    return next((classes(table)[model_type] for table in TABLES[task] if model_type in classes(table)), None)


def _encodes_text(model_type: str, found: Mapping[str, str]) -> bool:
    """Whether the bare model, without any head, takes text and nothing else."""
    if any(task in found for task in ("seq2seq", "speech", "image-text")):
        return False
    if model_type in classes("MODEL_FOR_VISUAL_QUESTION_ANSWERING"):
        return False
    heads = ("MODEL_FOR_MASKED_LM", *TABLES["text-generation"], *TABLES["classification"])
    return any(model_type in classes(table) for table in heads)


def task_of(model_type: str, architecture: str | None, *, is_decoder: bool = False, task: str | None = None) -> tuple[str, str]:
    """Task and the class that will be loaded for it.

    Args:
        model_type: transformers' name of the architecture, e.g. ``llama``.
        architecture: the class that wrote the weights if known, e.g. ``LlamaForCausalLM``.
        is_decoder: an encoder architecture set up to generate (``is_decoder`` of its config).
        task: the one that is wanted, where the weights do not decide.

    Raises:
        Refusal: nothing here can be asked of such a model, or not ``task``.
    """
    can = tasks_of(model_type)
    if task is not None:
        if task not in can:
            what = ", ".join(can) or "none of the tasks here"
            raise Refusal(Reason("models.task-impossible", model_type=model_type, task=task, what=what))
        return task, can[task]
    named = architecture or ""
    found = _named_task(model_type, named, can) if named else _usual_task(model_type, can, is_decoder=is_decoder)
    if found == "embedding" and named != classes("MODEL_FOR_TEXT_ENCODING").get(model_type):
        return found, classes("MODEL").get(model_type, named)  # a masked-LM checkpoint is loaded without its head
    if found is not None:
        return found, named or can[found]
    raise Refusal(Reason("models.no-class-runs-it", named=named or model_type))


def _named_task(model_type: str, named: str, can: Mapping[str, str]) -> str | None:
    """The task of a model whose class is known."""
    exact = next((task for task in _EXACT if can.get(task) == named), None)
    if exact is not None:
        return exact
    head = next((task for ending, task in _HEADS.items() if named.endswith(ending)), None)
    if head is not None and (head in can or not is_known(model_type)):
        return head
    for task in ("speech", "image-text", "seq2seq"):
        if task in can and (named == can[task] or named.endswith("ForConditionalGeneration")):
            return task
    if named == _class_for("text-generation", model_type) or named.endswith(("ForCausalLM", "LMHeadModel")):
        return "text-generation"
    if named == classes("MODEL_FOR_TEXT_ENCODING").get(model_type):
        return "embedding"
    if not is_known(model_type):  # its own code, which the caller has decided to trust
        return "embedding"
    return "embedding" if _encodes_text(model_type, can) and "embedding" in can else "forward"


_EXACT = (
    "audio-classification",
    "object-detection",
    "image-segmentation",
    "depth-estimation",
    "image-feature-extraction",
    "audio-feature-extraction",
)
"""Tasks whose classes have names that tell nothing, or something else."""


def _usual_task(model_type: str, can: Mapping[str, str], *, is_decoder: bool) -> str | None:
    """What an architecture is mostly used for."""
    for task in ("speech", "image-text", "seq2seq"):
        if task in can:
            return task
    if "text-generation" in can and (is_decoder or model_type not in classes("MODEL_FOR_MASKED_LM")):
        return "text-generation"
    if model_type in classes("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION"):
        return "forward"  # images beside words, not labels
    order = ("embedding", "image-classification", "speech-ctc", *_EXACT, "forward")
    return next((task for task in order if task in can), None)


def _no_text_to_text() -> set[str]:
    """Encoder-decoders that want sound or images: all that are also in the tables for those."""
    others = ("MODEL_FOR_SPEECH_SEQ_2_SEQ", "MODEL_FOR_IMAGE_TEXT_TO_TEXT", "MODEL_FOR_MULTIMODAL_LM")
    return _NO_TEXT_TO_TEXT.union(*(classes(table) for table in others))


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
                rows = node.value.args[0]
                if isinstance(rows, ast.List):  # one table begins with the rows of another, which are not a literal
                    rows.elts = [row for row in rows.elts if not isinstance(row, ast.Starred)]
                tables[name] = _plain(ast.literal_eval(rows))
    return tables


def _plain(rows: Sequence[tuple[str, Any]] | Any) -> dict[str, str]:
    """Some entries name several classes; the first is the usual one."""
    return {key: value if isinstance(value, str) else value[0] for key, value in rows}
