"""Forced text: a language model's predictions along a given text, read in one go and, as in use, token by token."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.execution.eval_data import spread_out
from core.execution.workload import text_config
from core.messages.reason import Reason
from profilers.forward_patch import has_own_forward

if TYPE_CHECKING:
    import torch

WINDOW = 256
"""Tokens of a window of the text that is read in one go; its second half is scored, where there is enough before it."""

SECOND_WINDOW = 128
"""The same of the second text, of which less is read: standard errors need several windows."""

PROMPT, FORCED = 16, 33
"""Tokens of a window of the decoding path: read at once, and decoded one by one."""

DECODED = 96
"""Positions wanted of the decoding path. Each is a forward of its own, so they cost as much time as that many tokens."""

SECOND_DECODED = 64
"""The same of the second text: two windows, so that it has a standard error."""

GREEDY = 32
"""New tokens that must be equal for a pass that claims to be lossless."""

MOST_BYTES = 256 << 20
"""Logits that are held at once. Of a larger vocabulary they are kept in 16 bits, then at fewer positions."""


@dataclass(frozen=True)
class Windows:
    """Pieces of the text, all int64. ``bulk`` [n, width], ``targets`` [n, scored]: what follows each scored position.

    ``decode`` [k, length]: the first ``prompt`` tokens are read at once, the others forced; k is a multiple of the batch that
    the model was prepared for, since a compiled step takes no other. ``decode`` None: the workload is too short for it.
    """

    bulk: torch.Tensor
    targets: torch.Tensor
    decode: torch.Tensor | None
    prompt: int
    batch: int

    @property
    def scored(self) -> int:
        """Positions scored of each window: the later half."""
        return int(self.targets.shape[1])

    @property
    def greedy(self) -> torch.Tensor | None:
        """The prompts [batch, prompt] that are continued freely."""
        return None if self.decode is None else self.decode[: self.batch, : self.prompt]

    @property
    def new_tokens(self) -> int:
        """Tokens decoded of each window."""
        return 0 if self.decode is None else int(self.decode.shape[1]) - self.prompt


def windows(
    ids: list[int],
    first: int | None,
    tokens: int,
    room: tuple[int, int, int],
    vocabulary: int,
    sizes: tuple[int, int] = (WINDOW, DECODED),
) -> Windows:
    """Pieces from everywhere in the text.

    Args:
        ids: the text without special tokens, at least 17.
        first: the token that goes before every piece (None: none).
        tokens: how many tokens are read in all in one go.
        room: the model's context, then the longest sequence and the batch of the workload that it was prepared for.
        vocabulary: its size, which decides how much is held.
        sizes: most tokens of a window that is read in one go, and positions wanted of the decoding path.
    """
    import torch

    context, longest, batch = room
    widest, decoded = sizes
    before = [] if first is None else [first]
    width = min(widest, tokens, context, len(ids) - 1 + len(before))
    own = width - len(before)
    scored = width - width // 2
    most = max(1, MOST_BYTES // (2 * vocabulary * scored))
    count = min(max(1, tokens // width), max(1, (len(ids) - 1) // own), most)
    starts = _starts(len(ids) - own - 1, count)
    bulk = [before + ids[start : start + own] for start in starts]
    targets = [ids[start + own - scored + 1 : start + own + 1] for start in starts]
    prompt = max(1, min(PROMPT, longest // 3))
    forced = min(FORCED, longest - prompt, len(ids) - prompt, max(2, MOST_BYTES // (4 * vocabulary * batch)))
    decode = None
    if forced >= 2:
        rows = -(-decoded // (forced - 1))
        rows = -(-min(rows, 16) // batch) * batch
        length = prompt + forced - len(before)
        decode = torch.tensor([before + ids[start : start + length] for start in _starts(len(ids) - length, rows)])
    return Windows(torch.tensor(bulk), torch.tensor(targets), decode, prompt, batch)


def _starts(last: int, count: int) -> list[int]:
    """``count`` places from 0 to ``last``, evenly spaced; repeated where there are fewer."""
    places = spread_out(last + 1, count)
    return [places[number % len(places)] for number in range(count)]


def room_of(model: Any, context_length: int | None, longest: int, batch: int) -> tuple[int, int, int]:
    """Context, longest sequence and batch, as ``windows`` wants them."""
    return context_length or int(getattr(text_config(model), "max_position_embeddings", 0) or WINDOW), longest, batch


# -- in one go ------------------------------------------------------------------------------------------------------------


def bulk_logits(model: Any, ids: torch.Tensor, scored: int) -> torch.Tensor:
    """Logits of the last ``scored`` positions of one window, [scored, vocabulary], on the CPU.

    Raises:
        ValueError: the model gives logits for fewer positions (an engine whose graph has only the last one).
    """
    import torch

    # Leaving out what nobody looks at saves a fifth of a small model's time; an engine's forward may not know the argument.
    knows = not has_own_forward(model) and "logits_to_keep" in inspect.signature(model.forward).parameters
    device = getattr(model, "device", "cpu")
    with torch.no_grad():
        output = model(
            input_ids=ids[None].to(device),
            attention_mask=torch.ones_like(ids[None]).to(device),
            use_cache=False,
            **({"logits_to_keep": scored} if knows else {}),
        )
    logits: torch.Tensor = output.logits[0]
    if len(logits) < scored:
        raise ValueError(Reason("execution.last-position-only"))
    return logits[-scored:].cpu()


def kept(logits: torch.Tensor, positions: int) -> torch.Tensor:
    """The logits as they are kept: less their largest (which a softmax does not see), in 16 bits where 32 take too much.

    Near the largest, where the probability is, 16 bits are then the finest.
    """
    shifted = logits.float() - logits.float().amax(-1, keepdim=True)
    return shifted if positions * logits.shape[-1] * 4 <= MOST_BYTES else shifted.half()


# -- token by token -------------------------------------------------------------------------------------------------------


def decoded_logits(model: Any, ids: torch.Tensor, prompt: int, generation: Mapping[str, Any]) -> torch.Tensor:
    """Logits along a forced text through the model's own ``generate``, of its decoding steps only.

    Args:
        model: with whatever its passes made of it.
        ids: the texts, int64 [batch, length].
        prompt: how many of their tokens are read at once.
        generation: further arguments of ``generate`` (``Subject.generation``).

    Returns:
        [batch, length − prompt − 1, vocabulary] on the CPU: the position ``prompt`` is the first that is decoded.

    Raises:
        RuntimeError: the decoding did not follow the text.
    """
    import torch
    from transformers import LogitsProcessorList

    new = ids.shape[1] - prompt
    ids = ids.to(getattr(model, "device", "cpu"))
    given = ids[:, :prompt].contiguous()
    result = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=new,
        do_sample=False,
        num_beams=1,
        logits_processor=LogitsProcessorList([_forcing(ids)]),
        output_logits=True,  # as the model gave them, before any processor
        return_dict_in_generate=True,
        **generation,
    )
    if isinstance(result, torch.Tensor) or not torch.equal(result.sequences, ids):  # a ``generate`` of another make
        raise RuntimeError("its way of decoding cannot be led along a given text")
    return torch.stack([step.cpu() for step in result.logits[1:]], dim=1)


def _forcing(ids: torch.Tensor) -> Any:
    """A logits processor that lets nothing but the text's next token through."""
    from transformers import LogitsProcessor

    class Forcing(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            wanted = ids[:, input_ids.shape[1]]
            return scores.new_full(scores.shape, float("-inf")).scatter_(1, wanted[:, None], 0.0)

    return Forcing()


def greedy(model: Any, prompts: torch.Tensor, new_tokens: int, generation: Mapping[str, Any]) -> list[list[int]]:
    """The tokens that the model itself continues prompts [batch, length] with, as the workload's requests do."""
    import torch

    prompts = prompts.to(getattr(model, "device", "cpu")).contiguous()
    sequences = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        **generation,
    )
    found: list[list[int]] = sequences[:, prompts.shape[1] :].tolist()
    return found


@contextmanager
def interruptible(model: torch.nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """While it lasts, ``check`` is called before every block of a model that nothing was done to, and may raise."""
    import torch

    blocks = [block for modules in model.modules() if isinstance(modules, torch.nn.ModuleList) for block in modules.children()]
    hooks = [block.register_forward_pre_hook(lambda *_: check()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
