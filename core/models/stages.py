"""The layers of a model in the order of its modules, each with the stage of inference it belongs to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from profilers.trace import Layer

if TYPE_CHECKING:
    import torch

_INHERITED = ("embed", "attention", "mlp", "head")
_HEAD_NAMES = {
    "lm_head",
    "pooler",
    "classifier",
    "pre_classifier",
    "score",
    "cls",
    "qa_outputs",
    "project_out",
    "vocab_projector",
}
_ATTENTION = re.compile(r"attention|attn|mixer|mamba|shortconv|short_conv|temporal_block|time_mix|retention")
_MLP = re.compile(r"mlp|feed_?forward|ffn|moe|expert|intermediate|denseactdense|denserelu|layerff|channel_mix|^fc_?\d|^lin_?\d")
_RESIDUAL_NORMS = {"layernorm"}
_ACTIVATION = re.compile(r"gelu|relu|silu|swish|activation|^act|tanh")

TRANSFER = "Transfer"
"""Class name of the module that loads a block's weights (the pass offload puts it there)."""


def layers_of(model: torch.nn.Module) -> list[Layer]:
    """One row per distinct module, in ``named_modules`` order; row 0 is the model itself, with the path "".

    A module that occurs twice is listed at its first path. ``parent`` is the row of the enclosing module, -1 for the model.
    Stages come from class names and paths. Modules inside attention, mlp, embeddings and heads belong to them (so does a
    q_norm); only the norm of a residual sum that some architectures keep inside (BERT's ``output.LayerNorm``) is a norm.
    """
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    rows: dict[str, int] = {}
    layers: list[Layer] = []
    in_block: list[bool] = []
    for path, module in model.named_modules():
        above, _, name = path.rpartition(".")
        parent = rows[above] if path else -1
        inside = parent >= 0 and (in_block[parent] or layers[parent].type == "ModuleList")
        if parent < 0:
            stage = "other"
        elif module is output:
            stage = "head"
        elif type(module).__name__ == TRANSFER:
            stage = "transfer"
        else:
            stage = _stage(name, module, layers[parent], inside)
        rows[path] = len(layers)
        in_block.append(inside)
        layers.append(Layer(path, type(module).__name__, stage, parent))
    return layers


def _stage(name: str, module: torch.nn.Module, parent: Layer, inside: bool) -> str:
    kind, called = type(module).__name__.lower(), name.lower()
    is_norm = "norm" in kind
    if parent.stage in _INHERITED:
        residual = is_norm and called.replace("_", "") in _RESIDUAL_NORMS and parent.stage in ("attention", "mlp")
        return "norm" if residual else parent.stage
    if is_norm:
        return "norm"
    if kind == "modulelist":
        # A list of experts or of heads belongs to its parent, which was decided above; a list of blocks to nothing.
        return "other"
    if not inside:
        return _outside(called, kind)
    in_list = parent.type == "ModuleList"
    if in_list and kind.endswith(("layer", "block")):
        return "other"  # the block itself, whatever its name says: Qwen2MoeDecoderLayer
    if _ATTENTION.search(called) or _ATTENTION.search(kind):
        return "attention"
    if _MLP.search(called) or _MLP.search(kind) or kind.endswith("output"):
        return "mlp"
    if in_list:
        return "other"
    if _is_linear(module, kind) or _ACTIVATION.search(kind) or _ACTIVATION.search(called):
        return "mlp"  # OPT keeps fc1, fc2 and the activation right in the block
    return "other"


def _outside(called: str, kind: str) -> str:
    """The stage of what is not in a block."""
    if "embed" in kind or "embed" in called or "rotary" in kind or called in ("wte", "wpe", "shared", "project_in"):
        return "embed"
    if called in _HEAD_NAMES or kind.endswith(("head", "pooler")):
        return "head"
    return "other"


def _is_linear(module: torch.nn.Module, kind: str) -> bool:
    return "linear" in kind or "conv1d" in kind or getattr(getattr(module, "weight", None), "ndim", 0) == 2
