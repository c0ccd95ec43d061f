"""Private and undocumented names of torch and transformers, each said once, so that a new release is this file's work.

As torch 2.13 to 2.15 and transformers 5.23 and 5.24 have them; public is only the name of a cache, which changed between
these. What instruments use is in ``profilers.torch_private``. For each, ``tests/house/test_torch_private.py`` says what no
longer works where a release lets it go. Operators are given out rather than called here: a layer asks for its own once, and a
call then has no frame more.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def wholly_imported(name: str) -> Any | None:
    """A module that is imported already, else None; also None while another thread is still importing it."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


# -- torch: products of integers ------------------------------------------------------------------------------------------


def int8_product() -> Callable[..., torch.Tensor]:
    """``(a int8 or uint8 [m, k], b int8 [k, n]) -> int32 [m, n]``, exact: of layers with int8 activations."""
    import torch

    return torch._int_mm


def int8_weight_product() -> Callable[..., torch.Tensor]:
    """``(x bfloat16 [m, k], weight int8 [n, k], scale [n]) -> [m, n]``: what int8 layers multiply few rows with on a CPU."""
    import torch

    return torch.ops.aten._weight_int8pack_mm


def int4_pack() -> Callable[..., torch.Tensor]:
    """``(values int32 [n, k], 1) -> uint8 [n, k / 2]``: a weight in the order of ``int4_weight_product``."""
    import torch

    return torch.ops.aten._convert_weight_to_int4pack_for_cpu


def int4_weight_product() -> Callable[..., torch.Tensor]:
    """``(x bfloat16 [m, k], packed, group size, scales and zeros [groups, n, 2]) -> [m, n]``: the product of int4 layers."""
    import torch

    return torch.ops.aten._weight_int4pack_mm_for_cpu


# -- torch.ao: its own dynamic quantization -------------------------------------------------------------------------------


def dynamic_quantization() -> Callable[..., Any] | None:
    """``quantize_dynamic`` of ``torch.ao``, which is deprecated; None where this torch has it no longer."""
    import torch

    return getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)


def dynamic_scales(granularity: str) -> Any:
    """What ``dynamic_quantization`` takes for one scale for a whole weight (``tensor``), or for each of its rows."""
    import torch

    known = torch.ao.quantization.qconfig
    return known.default_dynamic_qconfig if granularity == "tensor" else known.per_channel_dynamic_qconfig


def is_of_torch_ao(module: torch.nn.Module) -> bool:
    """Whether ``torch.ao`` made the layer, so that asking for its weight would unpack it."""
    return type(module).__module__.startswith("torch.ao.")


def packed_weight(module: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Weight and bias out of a ``LinearPackedParams`` of ``torch.ao``; None of any other module.

    The quantised layer answers too, by asking its ``LinearPackedParams``, which alone holds the packed object.
    """
    import torch

    unpack = getattr(module, "_weight_bias", None)
    if unpack is None or isinstance(getattr(module, "_packed_params", module), torch.nn.Module):
        return None
    weight, bias = unpack()
    return weight, bias


# -- torch: modules and tensors -------------------------------------------------------------------------------------------


def own_parameters(module: torch.nn.Module) -> Mapping[str, torch.nn.Parameter | None]:
    """A module's own parameters with its empty places, which ``named_parameters`` leaves out."""
    return module._parameters


def unsaved_buffers(module: torch.nn.Module) -> set[str]:
    """Names of a module's buffers that no file holds, because they are computed."""
    return module._non_persistent_buffers_set


def memory_of(storage: Any) -> int:
    """What is the same for two storages of one memory, those on the meta device included, whose address is always 0."""
    return int(storage._cdata)


def dispatch_mode() -> type:
    """The class whose ``__torch_dispatch__`` sees every operator while an instance is entered."""
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode


ATTENTION_OPERATORS = {
    "_scaled_dot_product_flash_attention_for_cpu": "torch's flash attention for the CPU",
    "_scaled_dot_product_flash_attention": "torch's flash attention",
    "_scaled_dot_product_efficient_attention": "torch's memory-efficient attention",
    "_scaled_dot_product_cudnn_attention": "cuDNN's attention",
    "_safe_softmax": "torch's plain attention, whole score matrices",
    "_softmax": "matrix products and a softmax, whole score matrices",
}
"""Operators by which an attention implementation gives itself away, and what it then is."""


def xpu_is_built() -> bool:
    """Whether this torch was built for Intel's GPUs; yes where it does not say."""
    import torch

    compiled = getattr(torch.xpu, "_is_compiled", None)
    return compiled is None or bool(compiled())


# -- dynamo: capturing a graph --------------------------------------------------------------------------------------------


def is_dynamos(error: BaseException, name: str) -> bool:
    """Whether it is dynamo's exception of this name. Dynamo takes a second to import, and a kept graph does without."""
    exceptions = sys.modules.get("torch._dynamo.exc")
    return exceptions is not None and isinstance(error, getattr(exceptions, name))


def compiled_frames() -> list[float]:
    """Seconds of each frame that dynamo compiled, all below it included; empty while dynamo is not imported.

    They only grow, but for ``forget_compiled``, which nobody calls within a run.
    """
    utils = sys.modules.get("torch._dynamo.utils")
    metrics: dict[str, list[float]] = getattr(utils, "compilation_time_metrics", {})
    return metrics.get("_compile.compile_inner", [])


def forget_compiled() -> None:
    """Let go of all that dynamo has compiled, if it is imported."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()


def forget_code(code: Any) -> None:
    """Let go of what dynamo compiled of one code object; graphs of others stay."""
    import torch

    torch._dynamo.reset_code(code)


def backend(name: str) -> Callable[[Any, Any], Callable[..., Any]]:
    """A compiler that dynamo knows by this name, as a function of graph and inputs."""
    import torch._dynamo

    found: Callable[[Any, Any], Callable[..., Any]] = torch._dynamo.lookup_backend(name)
    return found


def forget_static(tensor: torch.Tensor) -> None:
    """Make a tensor that was marked static (those of a static cache) a plain input of graphs."""
    tensor.__dict__.pop("_dynamo_static_input_type", None)


def outside_of_dynamo() -> AbstractContextManager[Any]:
    """Within it dynamo's context is not seen, which is about the model and not about another graph compiled meanwhile."""
    from torch._guards import tracing

    context: AbstractContextManager[Any] = tracing(None)
    return context


def sizes_like_others() -> AbstractContextManager[Any]:
    """Within it sizes of 0 and 1 (an empty cache, one token, a batch of one) are traced as sizes like others."""
    from torch.fx.experimental import _config

    context: AbstractContextManager[Any] = _config.patch(backed_size_oblivious=True)
    return context


# -- inductor: compiling it -----------------------------------------------------------------------------------------------


def mode_settings(mode: str) -> dict[str, Any]:
    """Inductor's settings for a mode of ``torch.compile``."""
    import torch._inductor

    return dict(torch._inductor.list_mode_options(mode))


def compile_graph(graph: torch.fx.GraphModule, inputs: Sequence[Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """A graph as a function, compiled for inputs of these shapes."""
    import torch._inductor

    call: Callable[..., Any] = torch._inductor.compile(graph, inputs, options=dict(settings) or None)
    return call


def compile_to_library(graph: torch.fx.GraphModule, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
    """A graph with constants as a C++ library, where the setting ``aot_inductor.output_path`` says."""
    import torch._inductor

    torch._inductor.aot_compile(graph, tuple(inputs), options=dict(settings))


def library_runner(library: Path) -> Any:
    """What runs a library of ``compile_to_library``, for one caller at a time."""
    import torch

    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)


def compile_to_package(exported: Any, into: Any, settings: Mapping[str, Any]) -> None:
    """An exported program as a package of AOTInductor, written to a path or a file object."""
    import torch

    torch._inductor.aoti_compile_and_package(exported, package_path=into, inductor_configs=dict(settings))


def load_package(path: Path) -> Any:
    """A package of ``compile_to_package``, to be called and to be given weights."""
    import torch

    return torch._inductor.aoti_load_package(str(path))


# -- transformers: what a model is ----------------------------------------------------------------------------------------


def keeps_state(model: Any) -> bool:
    """Whether it keeps a state instead of a cache (RWKV, Mamba): nothing of it can be masked, cut or fed in pieces."""
    return bool(getattr(model, "_is_stateful", False))


def takes_static_cache(model: Any) -> bool:
    """Whether transformers says that it runs with a static KV cache; yes where it says nothing."""
    return bool(getattr(model, "_can_compile_fullgraph", True))


def takes_paged_cache(model: Any) -> bool:
    """Whether its attention can be exchanged for one that reads pages."""
    return bool(getattr(model, "_supports_attention_backend", False))


def kept_in_float32(model: Any, *, of_float16: bool) -> set[str]:
    """Names of modules that the architecture wants in float32 in any dtype, and those that it wants so instead of float16."""
    kept = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    return kept | set(getattr(model, "_keep_in_fp32_modules", None) or ()) if of_float16 else kept


def sound_positions(model: Any) -> Callable[[int], Any] | None:
    """How many positions its encoder makes of this many samples; None where it does not say."""
    found: Callable[[int], Any] | None = getattr(model, "_get_feat_extract_output_lengths", None)
    return found


def attention_implementation(config: Any) -> str | None:
    """Which implementation of attention a model with this config runs; None of a config that has none."""
    found: str | None = getattr(config, "_attn_implementation", None)
    return found


def remember_attention(model: torch.nn.Module) -> Callable[[], None]:
    """What gives every part of the model the implementation of attention that it has now."""
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    held = [(config, config._attn_implementation) for config in configs.values() if hasattr(config, "_attn_implementation")]

    def restore() -> None:
        for config, implementation in held:
            config._attn_implementation_internal = implementation

    return restore


def from_config(auto_class: Any) -> Callable[..., torch.nn.Module]:
    """What builds a model with random weights: of an auto class, or of a model class itself."""
    found: Callable[..., torch.nn.Module] = getattr(auto_class, "from_config", None) or auto_class._from_config
    return found


ORIGIN_MARK = "_from_model_config"
"""The field of a generation config that says it was made from the model's config."""


# -- transformers: what it calls a cache ----------------------------------------------------------------------------------

CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""What a forward calls the cache that it is given, and its output the one that it leaves behind: all models the first since
transformers 5.24; before, language models the second and models with a state the third, as code of others still does."""


def cache_field() -> str:
    """What this version of transformers calls the cache in a language model's output."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    fields = CausalLMOutputWithPast.__dataclass_fields__
    return next(name for name in CACHE_NAMES if name in fields)


def cache_argument(model: Any) -> str:
    """What this model's forward calls the cache; that of other models where it takes whatever it is given."""
    taken = inspect.signature(model.forward).parameters
    return next((name for name in CACHE_NAMES if name in taken), None) or cache_field()


def cache_given(arguments: Mapping[str, Any]) -> Any:
    """The cache among the arguments of a forward, a paged one too; None where there is none."""
    for name in CACHE_NAMES:  # at every token
        if (cache := arguments.get(name)) is not None:
            return cache
    return None


def cache_left(output: Any) -> Any:
    """The cache in what a forward returned; None where there is none."""
    # not getattr alone: outputs of transformers 5.24 warn whoever asks for an older name, and stay silent in their __dict__
    held = getattr(output, "__dict__", {})
    for name in CACHE_NAMES:
        cache = held.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if cache is not None:
            return cache
    return None


# -- transformers: how it runs --------------------------------------------------------------------------------------------


def forget_longest_cache(model: torch.nn.Module) -> None:
    """Else ``generate`` makes every static cache as long as the longest one that it ever made for this model."""
    model.__dict__.pop("_previous_max_cache_length", None)


def batch_processor(manager: Any) -> Any:
    """What schedules the requests of continuous batching, without the thread that ``manager.start`` would start."""
    return manager._create_batch_processor()


def generation_step(processor: Any, model: torch.nn.Module) -> None:
    """One forward of the batch that ``processor`` has prepared."""
    processor._generation_step(model)


def onnx_outputs(runner: Any, binding: Any) -> Any:
    """What an ONNX Runtime session wrote into ``binding``, in the order of its outputs, as tensors."""
    return runner._read_outputs(binding)


@contextmanager
def seeing_openvino_conversions(see: Callable[[Any], None]) -> Iterator[None]:
    """While it lasts, ``see`` is given each traced graph before transformers' exporter converts it.

    Never called where this version of transformers converts in another way.
    """
    from transformers.exporters import exporter_openvino

    plain = getattr(exporter_openvino, "_convert_to_openvino", None)
    if plain is None:
        yield
        return

    def seeing(graph: Any) -> Any:
        see(graph)
        return plain(graph)

    exporter_openvino._convert_to_openvino = seeing
    try:
        yield
    finally:
        exporter_openvino._convert_to_openvino = plain
