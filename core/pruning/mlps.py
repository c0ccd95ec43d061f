"""The MLPs of a model, whatever its architecture calls their parts: which neurons matter, and making them narrower.

A neuron's score is what it writes into the residual stream: the root mean square of its activation times the norm of its down
column. From weights alone it is the product of the norms of all that it goes through (gate row, up row, down column), after
the magnitude pruning of whole filters in Li et al. 2016 (arXiv:1608.08710).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.pruning import slices

if TYPE_CHECKING:
    import torch

PATTERNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gate_proj", "up_proj"), "down_proj"),  # Llama, Qwen, Mistral, Gemma
    (("w1", "w3"), "w2"),
    (("wi_0", "wi_1"), "wo"),  # gated T5
    (("gate_up_proj",), "down_proj"),  # Phi-3: both halves in one matrix
    (("up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),  # GPT-2
    (("fc1",), "fc2"),  # OPT, ViT, Whisper
    (("fc_in",), "fc_out"),
    (("wi",), "wo"),  # T5
    (("dense_h_to_4h",), "dense_4h_to_h"),  # GPT-NeoX, Falcon
    (("lin1",), "lin2"),  # DistilBERT
    (("intermediate.dense",), "output.dense"),  # BERT
)
"""Names, below one module, of the layers that widen (a gate first) and of the one that narrows again."""

MERGED = "gate_up_proj"
TIE = 1e-6
"""Neurons that never fired on the sample tie at nothing; of these, those of small weights go first."""
SMALLEST = 1e-30
WIDTHS = ("intermediate_size", "intermediate_dim", "ffn_dim")


@dataclass(frozen=True)
class Mlp:
    """One MLP. ``ups`` have ``width`` outputs each, or twice that where gate and up are merged; ``down`` takes ``width``."""

    path: str
    owner: Any
    ups: tuple[Any, ...]
    down: Any
    width: int

    def scores(self, mean_squares: torch.Tensor | None = None) -> torch.Tensor:
        """A score per neuron, [width], float32; from weights alone without the mean squares of the activations [width]."""
        weights = self._weight_scores()
        if mean_squares is None:
            return weights
        written = slices.matrix(self.down).norm(dim=0) * mean_squares.sqrt()
        return written + TIE * written.max() * weights / weights.max().clamp(min=SMALLEST)

    def _weight_scores(self) -> torch.Tensor:
        import torch

        score = slices.matrix(self.down).norm(dim=0)
        for up in self.ups:
            rows = slices.matrix(up).norm(dim=1)
            if up.bias is not None:
                rows = torch.hypot(rows, up.bias.detach().float())
            for part in rows.split(self.width):
                score = score * part
        return score

    def narrow(self, count: int, mean_squares: torch.Tensor | None = None) -> None:
        """Keep the ``count`` neurons that score highest, in their order."""
        import torch

        kept = self.scores(mean_squares).topk(count).indices.sort().values
        for up in self.ups:
            halves = range(slices.outputs(up) // self.width)
            slices.keep_outputs(up, torch.cat([kept + half * self.width for half in halves]))
        slices.keep_inputs(self.down, kept)
        slices.set_where_equal(self.owner, WIDTHS, self.width, count)


@dataclass(frozen=True)
class Experts:
    """The experts of a mixture, all in two stacked tensors: [experts, 2 · width, hidden] and [experts, hidden, width]."""

    path: str
    owner: Any
    width: int

    def narrow(self, count: int) -> None:
        """Keep in every expert the ``count`` neurons of its own that score highest."""
        import torch

        up, down = self.owner.gate_up_proj, self.owner.down_proj
        gate_rows, up_rows = up.detach().float().norm(dim=2).split(self.width, dim=1)
        score = down.detach().float().norm(dim=1) * gate_rows * up_rows  # [experts, width]
        kept = score.topk(count, dim=1).indices.sort(dim=1).values
        rows = torch.cat([kept, kept + self.width], dim=1)
        narrower_up = up.detach().gather(1, rows[:, :, None].expand(-1, -1, up.shape[2]))
        narrower_down = down.detach().gather(2, kept[:, None, :].expand(-1, down.shape[1], -1))
        self.owner.gate_up_proj = torch.nn.Parameter(narrower_up, requires_grad=up.requires_grad)
        self.owner.down_proj = torch.nn.Parameter(narrower_down, requires_grad=down.requires_grad)
        slices.set_where_equal(self.owner, WIDTHS, self.width, count)


def find(model: torch.nn.Module) -> list[Mlp | Experts]:
    """All MLPs that can be made narrower, in module order."""
    found: list[Mlp | Experts] = []
    for path, module in model.named_modules():
        one = _experts(path, module) or _mlp(path, module)
        if one is not None:
            found.append(one)
    return found


def _mlp(path: str, owner: torch.nn.Module) -> Mlp | None:
    for up_names, down_name in PATTERNS:
        down = slices.child(owner, down_name)
        ups = tuple(slices.child(owner, name) for name in up_names)
        if not slices.sliceable(down) or not all(slices.sliceable(up) for up in ups):
            continue
        width = slices.inputs(down)
        wanted = 2 * width if up_names == (MERGED,) else width
        if all(slices.outputs(up) == wanted for up in ups) and not _norm_inside(owner, width, slices.outputs(down)):
            return Mlp(path, owner, ups, down, width)
        return None
    return None


def _norm_inside(owner: torch.nn.Module, width: int, hidden: int) -> bool:
    """Whether something between the layers (a norm, say) has a vector as wide as the MLP, which would no longer fit."""
    if width == hidden:
        return False  # then such vectors may as well belong to the residual stream
    layers = [module for module in owner.modules() if slices.sliceable(module)]
    own = {id(layer.bias) for layer in layers}
    return any(value.dim() == 1 and len(value) == width and id(value) not in own for value in owner.parameters())


def _experts(path: str, owner: Any) -> Experts | None:
    import torch

    held = torch_private.own_parameters(owner)
    up, down = held.get("gate_up_proj"), held.get("down_proj")
    if not (isinstance(up, torch.Tensor) and isinstance(down, torch.Tensor)) or up.dim() != 3 or not up.is_floating_point():
        return None
    experts, hidden, width = down.shape
    usual = not getattr(owner, "is_transposed", False) and getattr(owner, "is_concatenated", True)
    without_bias = set(held) == {"gate_up_proj", "down_proj"}
    if not usual or not without_bias or tuple(up.shape) != (experts, 2 * width, hidden):
        return None
    return Experts(path, owner, width)
