"""Private and undocumented names of torch that instruments use, each said once; ``core.torch_private`` has all others.

As torch 2.13 has them. ``tests/house/test_torch_private.py`` says for each what no longer works where a release of
torch lets it go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CALL_SLOT = "_compiled_call_impl"
"""What ``Module.__call__`` calls instead of ``_call_impl`` where an instance has it: a patch there costs no frame more.

Meant for ``Module.compile``.
"""


def children_of(module: torch.nn.Module) -> dict[str, torch.nn.Module | None]:
    """The dict of a module's children itself: in its order, with empty places, and to be changed.

    ``named_children`` leaves out empty places and what occurs twice, and gives a copy.
    """
    return module._modules


def share_children(twin: torch.nn.Module, children: Mapping[str, torch.nn.Module | None]) -> None:
    """Give a shallow copy of a module a dict of children of its own; ``setattr`` would write into the one it shares."""
    twin.__dict__["_modules"] = dict(children)


def has_forward_hooks(module: torch.nn.Module) -> bool:
    """Whether hooks are called before or after this module's own ``forward``."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def has_any_hooks(module: torch.nn.Module) -> bool:
    """Whether ``Module.__call__`` leaves its fast path for this module: hooks of its own, or of all modules."""
    from torch.nn.modules import module as every

    return has_forward_hooks(module) or any(
        (
            *(module._backward_hooks, module._backward_pre_hooks),
            *(every._global_forward_hooks, every._global_forward_pre_hooks),
            *(every._global_backward_hooks, every._global_backward_pre_hooks),
        )
    )


def record_label() -> Any:
    """The class of a range in Kineto's record, ``with label(name):``.

    ``torch.profiler.record_function`` is an operator, and asks the dispatcher twice for each range.
    """
    import torch

    return torch._C._profiler._RecordFunctionFast


def keep_in_order(operator: Any) -> None:
    """Have compilers neither drop, move nor double this operator, although nobody uses what it gives: it has an effect."""
    from torch._higher_order_ops.effects import _EffectType, _register_effectful_op

    _register_effectful_op(operator, _EffectType.ORDERED)
