"""The attention layers of a model: their heads, what each is worth, and removing whole key/value groups.

A group is one key/value head with the query heads that read it (grouped-query attention), or one head. It is worth what it
writes into the residual stream: the root of the summed mean squares of its values times the squared norms of their columns of
W_o. From weights alone it is the Frobenius norm of W_o · W_v (the OV circuit of Elhage et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.pruning import slices

if TYPE_CHECKING:
    import torch

APART: tuple[tuple[str, str, str, str], ...] = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),  # Llama, Qwen, Mistral, Gemma, ViT
    ("q_proj", "k_proj", "v_proj", "out_proj"),  # OPT, BART, Whisper, CLIP
    ("self.query", "self.key", "self.value", "output.dense"),  # BERT
    ("q", "k", "v", "o"),  # T5
    ("q_lin", "k_lin", "v_lin", "out_lin"),  # DistilBERT
)
MERGED: tuple[tuple[str, str], ...] = (("c_attn", "c_proj"), ("qkv_proj", "o_proj"))  # GPT-2, Phi-3: all q, all k, all v
INTERLEAVED = ("query_key_value", "dense")  # GPT-NeoX: q, k, v of the first head, of the second, …

HEAD_SIZES = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim")
HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads")
GROUP_COUNTS = ("num_key_value_heads", "num_kv_heads")
WIDTHS = ("all_head_size", "inner_dim", "split_size")
POSITION_BIAS = "relative_attention_bias"


@dataclass(frozen=True)
class Attention:
    """One attention layer.

    ``core`` is the module whose forward reshapes into heads, ``out`` the projection back. ``projections`` are q, k and v,
    or the one that does all three. ``queries`` and ``groups`` count heads. ``tie`` is the same for layers that must keep the
    same heads, because they share one position bias.
    """

    path: str
    core: Any
    projections: tuple[Any, ...]
    out: Any
    head_size: int
    queries: int
    groups: int
    tie: str
    interleaved: bool = False

    def scores(self, mean_squares: torch.Tensor | None = None) -> torch.Tensor:
        """What each group is worth, [groups], float32; ``mean_squares`` are those of the inputs of ``out``, in their order."""
        import torch

        if mean_squares is not None:
            return (mean_squares * slices.matrix(self.out).square().sum(0)).view(self.groups, -1).sum(1).sqrt()
        values = self._values().view(self.groups, self.head_size, -1)
        columns = slices.matrix(self.out).t().reshape(self.groups, -1, self.head_size, slices.outputs(self.out))
        worth = []
        for value, heads in zip(values, columns, strict=True):
            grams = torch.einsum("hdo,heo->hde", heads, heads)  # W_o^T W_o of each query head, without building W_o W_v
            worth.append((grams * (value @ value.t())).sum().clamp(min=0).sqrt())
        return torch.stack(worth)

    def keep(self, kept: torch.Tensor) -> None:
        """Leave only these groups (sorted numbers)."""
        import torch

        per_group = self.queries // self.groups
        queries = (kept[:, None] * per_group + torch.arange(per_group)).flatten()
        query_rows, rows = self._rows(queries), self._rows(kept)
        if len(self.projections) == 3:
            for projection, chosen in zip(self.projections, (query_rows, rows, rows), strict=True):
                slices.keep_outputs(projection, chosen)
        elif self.interleaved:
            slices.keep_outputs(self.projections[0], _spread(kept, 3 * self.head_size))
        else:
            first, second = self.queries * self.head_size, (self.queries + self.groups) * self.head_size
            slices.keep_outputs(self.projections[0], torch.cat([query_rows, rows + first, rows + second]))
        slices.keep_inputs(self.out, query_rows)
        self._renumber(len(queries), len(kept))

    def _values(self) -> torch.Tensor:
        """The rows of v, [groups · head size, inputs]."""
        weight = slices.matrix(self.projections[-1])
        if self.interleaved:
            return weight.view(self.groups, 3, self.head_size, -1)[:, 2].reshape(self.groups * self.head_size, -1)
        return weight[-self.groups * self.head_size :]

    def _rows(self, heads: torch.Tensor) -> torch.Tensor:
        return _spread(heads, self.head_size)

    def _renumber(self, queries: int, groups: int) -> None:
        slices.set_where_equal(self.core, WIDTHS, self.queries * self.head_size, queries * self.head_size)
        slices.set_where_equal(self.core, GROUP_COUNTS, self.groups, groups)
        slices.set_where_equal(self.core, HEAD_COUNTS, self.queries, queries)


def find(model: torch.nn.Module) -> tuple[list[Attention], list[str]]:
    """All attention layers whose heads can be removed, and the paths of those that look like one but cannot be cut safely."""
    found: list[Attention] = []
    unsafe: list[str] = []
    for path, module in model.named_modules():
        candidate = _parts(module)
        if candidate is None:
            continue
        one = _attention(path, *candidate)
        if one is None:
            unsafe.append(path)
        else:
            found.append(one)
    return found, unsafe


def cut_position_bias(attention: Attention, kept: torch.Tensor) -> None:
    """Leave only these heads' columns of the position bias, where this layer holds it for all of its tie."""
    import torch

    bias = getattr(attention.core, POSITION_BIAS, None)
    if bias is not None:
        weight = bias.weight.detach().index_select(1, kept.to(bias.weight.device)).contiguous()
        bias.weight = torch.nn.Parameter(weight, requires_grad=bias.weight.requires_grad)
        bias.embedding_dim = len(kept)


def _parts(module: Any) -> tuple[Any, tuple[Any, ...], Any, bool] | None:
    """Core, projections, output and whether q, k and v are interleaved, of a module that has the names of an attention."""
    for *names, out_name in APART:
        projections = tuple(slices.child(module, name) for name in names)
        out = slices.child(module, out_name)
        if slices.sliceable(out) and all(slices.sliceable(one) for one in projections):
            core = slices.child(module, names[0].rpartition(".")[0]) if "." in names[0] else module
            return core, projections, out, False
    for qkv_name, out_name in (*MERGED, INTERLEAVED):
        qkv, out = slices.child(module, qkv_name), slices.child(module, out_name)
        transposed = qkv_name == "c_attn"  # GPT-BigCode has the name too, with another order inside
        if slices.sliceable(qkv) and slices.sliceable(out) and slices.is_transposed(qkv) == transposed:
            return module, (qkv,), out, qkv_name == INTERLEAVED[0]
    return None


def _attention(path: str, core: Any, projections: tuple[Any, ...], out: Any, interleaved: bool) -> Attention | None:
    """The layer, or None where its shapes are not those of plain (grouped-query) attention."""
    head_size = next((int(size) for name in HEAD_SIZES if (size := getattr(core, name, None))), 0)
    if not head_size or slices.inputs(out) % head_size or (interleaved and hasattr(core, "num_heads")):
        return None
    queries = slices.inputs(out) // head_size
    sizes = [slices.outputs(one) for one in projections]
    if len(sizes) == 1:
        rest = sizes[0] - queries * head_size
        sizes = [queries * head_size, rest // 2, rest - rest // 2]
    groups = sizes[1] // head_size
    plain = sizes == [queries * head_size, groups * head_size, groups * head_size] and groups > 0 and queries % groups == 0
    if not plain or (interleaved and groups != queries) or _per_head_values(core, projections, out, queries, head_size):
        return None
    tied = hasattr(core, "has_" + POSITION_BIAS) and path.endswith("SelfAttention")
    tie = path.partition(".block.")[0] if tied else path
    return Attention(path, core, projections, out, head_size, queries, groups, tie, interleaved)


def _per_head_values(core: Any, projections: tuple[Any, ...], out: Any, queries: int, head_size: int) -> bool:
    """Whether something else has an entry per head or per head value: a norm over all heads, sinks, a bias table."""
    known = {id(value) for layer in (*projections, out) for value in layer.parameters()}
    others = [value for name, value in core.named_parameters() if id(value) not in known and POSITION_BIAS not in name]
    return any({queries, queries * head_size} & set(value.shape) - {head_size} for value in others)


def _spread(numbers: torch.Tensor, size: int) -> torch.Tensor:
    """The rows of these heads, each ``size`` rows long."""
    import torch

    return (numbers[:, None] * size + torch.arange(size)).flatten()
