"""What a model's own generation config may still decide: which tokens it knows, never how it is measured.

Requests are greedy and of fixed length. Whatever else a ``generation_config.json`` asks for (to stop at a word, to search with
beams, to punish repetition, to guess tokens, to give up after a second) is set back to neutral when the model is loaded, and
told where it would have changed the text or the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import Refusal
from core.messages.reason import Reason
from core.torch_private import ORIGIN_MARK

KEPT = frozenset(
    {
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "decoder_start_token_id",
        "forced_bos_token_id",  # the language that a translator writes
        "bad_words_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
        "use_cache",
        ORIGIN_MARK,
        "transformers_version",
    }
)
"""What the model's tokens mean and which of them it may write; and whether it keeps a cache, which is told."""

RULES = ("forced_bos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens")
"""Of those the ones that decide what is written, and take their time at every token."""

SILENT = frozenset(
    {
        # lengths and ends: requests are of fixed length
        *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "forced_eos_token_id"),
        # what only sampling or beams look at
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("early_stopping", "length_penalty", "diversity_penalty", "renormalize_logits", "remove_invalid_values", "low_memory"),
        # what is returned beside the tokens
        *("return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores", "output_logits"),
        # of guessing, without which they mean nothing
        *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("max_matching_ngram_size", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight"),
        *("compile_config", "disable_compile", "continuous_batching_config"),
    }
)
"""Left out without a word, since greedy requests of fixed length know none of it."""

TOLD: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "repetition_penalty": (1,),
    "encoder_repetition_penalty": (1,),
    "guidance_scale": (1,),
    "cache_implementation": ("dynamic", "hybrid"),  # transformers leaves "hybrid" out as well
    **dict.fromkeys(
        (
            *("max_time", "stop_strings", "token_healing", "penalty_alpha", "dola_layers", "constraints", "force_words_ids"),
            *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "sequence_bias"),
            *("watermarking_config", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "speculation_type"),
            *("cache_config", "max_cache_len", "prefill_chunk_size"),
        ),
        (),
    ),
}
"""Left out and told, unless the value is one of these or nothing at all: each changes the text, the time or the memory."""

_OF_WHISPER = ("return_timestamps", "return_token_timestamps", "return_segments")


def settle(model: Any) -> tuple[Reason, ...]:
    """Set the generation config of a model back to neutral.

    Args:
        model: as its source gives it; one without a generation config stays as it is.

    Returns:
        Sentences for people: what was left out, what stays in force, and that there is no cache where there is none.
    """
    config = getattr(model, "generation_config", None)
    if config is None:
        return ()
    _refuse_odd_tokens(model, config)
    left_out = []
    for name in neutral_fields():
        value = getattr(config, name, None)
        if value and name not in SILENT and value not in TOLD.get(name, ()):
            left_out.append(name)
        if value is not None:
            setattr(config, name, None)  # transformers then takes its own standard, which is neutral
    for name in _OF_WHISPER:
        if getattr(config, name, None):
            setattr(config, name, False)
    in_force = [name for name in RULES if getattr(config, name, None) not in (None, [], ())]
    return tuple(sentence for sentence in (_about(left_out, in_force), _about_cache(model)) if sentence)


def _refuse_odd_tokens(model: Any, config: Any) -> None:
    """``Refusal`` where what should be a token is none: else the first request fails somewhere inside."""
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id"):
        value = getattr(config, name, None)
        several = value if isinstance(value, list | tuple) else [value]
        if value is not None and not all(type(token) is int and -1 <= token < 1 << 31 for token in several):
            raise Refusal(Reason("models.no-such-token", model=type(model).__name__, value=str(value)[:40], name=name))


def neutral_fields() -> list[str]:
    """Every field of transformers' generation config, also one that is newer than this list, but those that are kept."""
    from transformers import GenerationConfig

    return [name for name in vars(GenerationConfig()) if name not in KEPT]


def keeps_cache(model: Any) -> bool:
    """Whether ``generate`` keeps keys and values from one token to the next, as far as the configuration decides it."""
    config = getattr(model, "generation_config", None)
    return getattr(config, "use_cache", None) is not False


def _about(left_out: list[str], in_force: list[str]) -> Reason | None:
    if left_out and in_force:
        return Reason("models.config-leaves-out-and-keeps", left_out=tuple(left_out), kept=tuple(in_force))
    if left_out:
        return Reason("models.config-leaves-out", left_out=tuple(left_out))
    return Reason("models.config-keeps", kept=tuple(in_force)) if in_force else None


def _about_cache(model: Any) -> Reason | None:
    return None if keeps_cache(model) else Reason("models.cache-off")
