"""Is a model the same again after passes were on? Every pass switched on and off many times, in random order.

    python -m benchmarks.toggles [--times 20] [--arch llama] [--pass int8_weight_only] [--seed 0]

For five small architectures: each pass that can be used is applied, run and taken off `--times` times, in random order, with
random options. After each, the model without passes must give its first outputs bit for bit; at the end resident memory must
not have grown. Prints a line per architecture and the passes that were refused, with the reason.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.model_slot import ModelSlot, PreparedModel, give_memory_back
from core.execution.preparation import prepare
from core.execution.tasks.base import form_of
from core.models.base import generates
from core.pass_api.base import Pass, passes
from core.pass_api.search_space import Categorical, search_space
from core.planning.kernels import as_run
from core.progress import Progress

ARCHITECTURES = {
    "llama": "hidden_size=64&intermediate_size=192&num_hidden_layers=4&num_attention_heads=4&num_key_value_heads=2"
    "&vocab_size=256",
    "gpt2": "n_embd=64&n_layer=4&n_head=4&vocab_size=256",
    "qwen2_moe": "hidden_size=64&intermediate_size=192&moe_intermediate_size=64&shared_expert_intermediate_size=64"
    "&num_experts=4"
    "&num_hidden_layers=4&num_attention_heads=4&num_key_value_heads=2&vocab_size=256",
    "opt": "hidden_size=64&word_embed_proj_dim=64&ffn_dim=192&num_hidden_layers=4&num_attention_heads=4&vocab_size=256",
    "bert": "hidden_size=64&intermediate_size=192&num_hidden_layers=4&num_attention_heads=4&vocab_size=256",
}
SLOW = frozenset({"compile_decode", "compile_forward", "aot_inductor", "onnxruntime", "openvino", "llama_cpp", "attention"})
"""Seconds each: left out unless named (``attention`` may choose one that compiles)."""


@dataclass
class Toggling:
    """One small model, whose first outputs are kept."""

    spec: str
    holder: ModelSlot = field(default_factory=ModelSlot)
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = self.outputs(())

    def prepared(self, choices: Sequence[PassConfig]) -> tuple[RunConfig, PreparedModel]:
        """The model with these passes; ``Refusal`` where they cannot be had."""
        model = ModelConfig(f"arch:{self.spec}")
        workload = WorkloadConfig(prompt_tokens=12, new_tokens=6, batch=2 if _batches(choices) else 1)
        config = RunConfig(model, tuple(choices), TargetConfig("cpu", 1), workload)
        self.holder.load(model, "cpu", Progress())
        return config, prepare(config, self.holder, Progress())

    def outputs(self, choices: Sequence[PassConfig]) -> Any:
        """Logits of a forward where there are no passes; else what the model generates or encodes, as numbers."""
        import torch

        config, prepared = self.prepared(choices)
        subject = prepared.subject
        form = form_of(prepared.loaded, config.workload, "cpu")
        inputs = form.inputs()
        with torch.no_grad(), as_run(subject):
            if not choices:
                output = subject.model(**inputs.tensors)
                return (output.logits if "logits" in output else output.last_hidden_state).clone()
            if generates(subject.task):
                settings: dict[str, Any] = {
                    "max_new_tokens": 6,
                    "min_new_tokens": 6,
                    "do_sample": False,
                    **subject.execution.generation,
                }
                result = subject.model.generate(**inputs.tensors, **settings)
                assert result.shape[-1] == inputs.length + 6, "not as many tokens as were asked for"
                assert int(result.max()) < 256, "a token that is not in the vocabulary"
                return result
            form.probe(subject, inputs)
            return subject.model(**inputs.tensors).last_hidden_state

    def toggle(self, choices: Sequence[PassConfig]) -> bool:
        """On, run, and off; False where they were refused. Raises ``AssertionError`` where something is not as before."""
        import torch

        try:
            found = self.outputs(choices)
        except Refusal as refusal:
            sentence = str(refusal)
            assert sentence[:1].isupper(), f"no sentence: {sentence!r}"
            assert sentence.endswith("."), f"no sentence: {sentence!r}"
            self.refused["+".join(choice.id for choice in choices)] = sentence
            return False
        finally:
            again = self.outputs(())
            assert torch.equal(again, self.first), f"not as before after {[choice.id for choice in choices]}"
        assert torch.isfinite(found.float()).all(), f"not finite with {[choice.id for choice in choices]}"
        return True


def _batches(choices: Sequence[PassConfig]) -> bool:
    return any(choice.id == "continuous_batching" for choice in choices)


def random_options(one: Pass, chance: random.Random) -> dict[str, Any]:
    """Some of the pass's options, drawn from their choices and limits; texts and paths stay as they are."""
    drawn: dict[str, Any] = {}
    for name, space in search_space(one.options).items():
        if chance.random() < 0.5:
            continue
        if isinstance(space, Categorical):
            drawn[name] = chance.choice([value for value in space.choices if value not in ("zentorch",)])
        elif space.kind is int:
            drawn[name] = chance.randint(int(space.low), min(int(space.high), 16))
        else:
            drawn[name] = round(chance.uniform(space.low, space.high), 3)
    if one.id == "heal":
        drawn["steps"] = 2
    return drawn


def main() -> None:
    """Toggle and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--arch", dest="names", action="append", choices=sorted(ARCHITECTURES))
    parser.add_argument("--pass", dest="passes", action="append")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    chosen = [one for one in passes if (one.id in asked.passes if asked.passes else one.id not in SLOW)]
    for name in asked.names or ARCHITECTURES:
        model = Toggling(f"{name}?{ARCHITECTURES[name]}")
        turns = [one for one in chosen for _ in range(asked.times)]
        chance.shuffle(turns)
        done, sizes = 0, []
        for one in turns:
            done += model.toggle([PassConfig(one.id, random_options(one, chance))])
            give_memory_back()
            sizes.append(psutil.Process().memory_info().rss)
        third = len(sizes) // 3
        growth = (max(sizes[-third:]) - max(sizes[third : 2 * third])) / (1 << 20)
        told = f"{done} of {len(turns)} ran, the rest refused; outputs as before each time"
        print(f"{name}: {told}; memory {growth:+.1f} MiB", flush=True)
        for pass_id, sentence in model.refused.items():
            print(f"    {pass_id}: {sentence}")
        model.holder.unload()


if __name__ == "__main__":
    main()
