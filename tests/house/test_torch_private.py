"""A canary for each private name of torch and transformers: which one a release let go, and what then no longer works."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutput

from core import torch_private as private
from core.passes import compiling
from core.torch_private import ATTENTION_OPERATORS, ORIGIN_MARK
from profilers import torch_private as of_instruments
from tests.support.folders import ROOT
from tests.support.sources import modules

TABLES = ("core/torch_private.py", "profilers/torch_private.py")

CANARIES: dict[str, Callable[[], None]] = {}


def canary(breaks: str, *names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Registers a check of these names; ``breaks`` says what no longer works without them, and is what a failure shows."""

    def registered(check: Callable[[], None]) -> Callable[[], None]:
        for name in names or (check.__name__,):
            assert name not in CANARIES
            CANARIES[name] = check
        check.__doc__ = breaks
        return check

    return registered


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    return AutoModelForCausalLM.from_config(config)


@canary("a window that opens while torch is imported elsewhere reads a half-made module")
def wholly_imported() -> None:
    assert private.wholly_imported("torch") is torch
    assert private.wholly_imported("no_such_module") is None
    assert torch.__spec__ is not None
    torch.__spec__._initializing = True
    try:
        assert private.wholly_imported("torch") is None
    finally:
        torch.__spec__._initializing = False


# -- torch ----------------------------------------------------------------------------------------------------------------


@canary("int8 layers with int8 activations, and the ceiling of int8 products")
def int8_product() -> None:
    left, right = torch.randint(-9, 9, (32, 64), dtype=torch.int8), torch.randint(-9, 9, (64, 16), dtype=torch.int8)
    for inside in (left, (left + 64).to(torch.uint8)):
        assert torch.equal(private.int8_product()(inside, right), inside.int() @ right.int())


@canary("int8 layers in bfloat16 compute few rows without their kernel")
def int8_weight_product() -> None:
    x, weight = torch.ones(2, 64, dtype=torch.bfloat16), torch.full((32, 64), 3, dtype=torch.int8)
    product = private.int8_weight_product()(x, weight, torch.full((32,), 0.5, dtype=torch.bfloat16))
    assert torch.equal(product, torch.full((2, 32), 96, dtype=torch.bfloat16))


@canary("int4 layers, whose weight nothing else packs and multiplies", "int4_pack", "int4_weight_product")
def int4() -> None:
    values = torch.full((32, 64), 10, dtype=torch.int32)
    packed = private.int4_pack()(values, 1)
    assert (packed.shape, packed.dtype) == ((32, 32), torch.uint8)
    scales = torch.stack([torch.full((2, 32), 0.5), torch.zeros(2, 32)], dim=-1).to(torch.bfloat16)
    product = private.int4_weight_product()(torch.ones(1, 64, dtype=torch.bfloat16), packed, 32, scales)
    assert torch.equal(product, torch.full((1, 32), 64, dtype=torch.bfloat16))  # (10 - 8) · 0.5 · 64


@canary(
    "the fbgemm kernel of int8 dynamic, and the bytes of its layers",
    "dynamic_quantization",
    "dynamic_scales",
    "is_of_torch_ao",
    "packed_weight",
)
def dynamic_quantization() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    quantize = private.dynamic_quantization()
    assert quantize is not None
    for granularity in ("tensor", "row"):
        with pytest.warns(DeprecationWarning, match="torch.ao.quantization is deprecated"):
            made = quantize(model, {"0": private.dynamic_scales(granularity)}, dtype=torch.qint8)
        assert private.is_of_torch_ao(made[0])
        assert private.packed_weight(made[0]) is None  # it answers for the one below it
        (held,) = (found for found in map(private.packed_weight, made.modules()) if found is not None)
        assert tuple(held[0].shape) == (4, 8)
    assert not private.is_of_torch_ao(model[0])


@canary("merged projections and offloading take a weight of two modules for one's own; experts are not counted")
def own_parameters() -> None:
    assert set(private.own_parameters(torch.nn.Linear(2, 2, bias=False))) == {"weight", "bias"}


@canary("casting rounds computed buffers (rotary frequencies) too, which moves every position")
def unsaved_buffers() -> None:
    module = torch.nn.Module()
    module.register_buffer("saved", torch.zeros(1))
    module.register_buffer("computed", torch.zeros(1), persistent=False)
    assert private.unsaved_buffers(module) == {"computed"}


@canary("weights and caches that share memory count twice")
def memory_of() -> None:
    for device in ("cpu", "meta"):
        one, other = torch.zeros(4, device=device), torch.zeros(4, device=device)
        places = [private.memory_of(tensor.untyped_storage()) for tensor in (one, one[1:], other)]
        assert places[0] == places[1] != places[2]


@canary("the report of the attention pass cannot say what ran")
def dispatch_mode() -> None:
    seen = []
    mode: Any = private.dispatch_mode()

    class Seeing(mode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Seeing():
        torch.ones(2).exp()
    assert "aten.exp.default" in seen


@canary("the report of the attention pass names no implementation", "ATTENTION_OPERATORS")
def attention_operators() -> None:
    assert all(hasattr(torch.ops.aten, name) for name in ATTENTION_OPERATORS)


@canary("a torch without Intel's GPUs is told as a machine without one")
def xpu_is_built() -> None:
    assert torch.xpu._is_compiled() is private.xpu_is_built()


# -- dynamo and inductor --------------------------------------------------------------------------------------------------


@canary("compiled steps are not refused in a sentence, and one that cannot tick does not run without ticks")
def is_dynamos() -> None:
    exceptions = importlib.import_module("torch._dynamo.exc")
    error = exceptions.Unsupported("why", skip_frame=False) if _takes(exceptions.Unsupported, "skip_frame") else None
    assert issubclass(exceptions.Unsupported, exceptions.TorchDynamoException)
    assert issubclass(exceptions.TorchDynamoException, RuntimeError)
    assert not private.is_dynamos(RuntimeError(), "Unsupported")
    assert error is None or private.is_dynamos(error, "Unsupported")


@canary(
    "compile times are not told, and moments that compiled are not tagged so; compiled code of an undone pass stays",
    "compiled_frames",
    "forget_compiled",
    "forget_code",
    "backend",
)
def dynamo() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    private.forget_compiled()
    call = torch.compile(twice, backend=private.backend("eager"))
    frames = []
    for forget in (None, None, lambda: private.forget_code(twice.__code__), private.forget_compiled):
        if forget is not None:
            forget()
        assert call(torch.ones(2)).tolist() == [2.0, 2.0]
        frames.append(len(private.compiled_frames()))
    assert frames == [1, 1, 2, 1]  # the last lets go of the times too
    assert (compiling.compile_ns() or 0) > 0


@canary("with frozen weights a static cache is frozen too, and every token is computed from an empty one")
def forget_static() -> None:
    tensor = torch.zeros(1)
    torch._dynamo.mark_static_address(tensor)
    assert "_dynamo_static_input_type" in vars(tensor)
    private.forget_static(tensor)
    assert "_dynamo_static_input_type" not in vars(tensor)


@canary("libraries of compiled steps are compiled with dynamo's guards in sight, which fails")
def outside_of_dynamo() -> None:
    from torch._guards import TracingContext, tracing

    with tracing(TracingContext(None)):
        assert TracingContext.try_get() is not None
        with private.outside_of_dynamo():
            assert TracingContext.try_get() is None


@canary("AOTInductor's graph is for one batch and one length")
def sizes_like_others() -> None:
    from torch.fx.experimental import _config

    before = _config.backed_size_oblivious
    with private.sizes_like_others():
        assert _config.backed_size_oblivious is True
    assert _config.backed_size_oblivious is before


@canary("the mode max-autotune of compiled steps")
def mode_settings() -> None:
    assert private.mode_settings("max-autotune-no-cudagraphs")["max_autotune"] is True


@canary(
    "compiled steps and AOTInductor, in their four calls of inductor",
    "compile_graph",
    "compile_to_library",
    "compile_to_package",
    "load_package",
)
def inductor() -> None:
    """The calls themselves take seconds each: test_compiled_graphs and test_aot make them."""
    import torch._inductor as compiler

    assert _takes(compiler.compile, "gm", "example_inputs", "options")
    assert _takes(compiler.aot_compile, "gm", "args", "options")
    assert _takes(compiler.aoti_compile_and_package, "exported_program", "package_path", "inductor_configs")
    assert _takes(compiler.aoti_load_package, "path")
    from torch._inductor import config

    for name in ("output_path", "package_constants_in_so", "precompile_headers"):
        assert hasattr(config.aot_inductor, name)


@canary("compiled steps are not kept on disk")
def library_runner() -> None:
    with pytest.raises(RuntimeError, match=r"no-such\.so"):
        private.library_runner(Path("no-such.so"))
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu
    assert all(callable(getattr(runner, name)) for name in ("get_constant_names_to_original_fqns", "update_constant_buffer"))


def _takes(call: Any, *names: str) -> bool:
    """Whether a function has parameters of these names."""
    return set(names) <= set(inspect.signature(call).parameters)


# -- transformers ---------------------------------------------------------------------------------------------------------


@canary(
    "models with a state are masked, cut and fed in pieces; models without a static or paged cache are not refused",
    "keeps_state",
    "takes_static_cache",
    "takes_paged_cache",
)
def what_a_model_is() -> None:
    from transformers import MambaForCausalLM, PreTrainedModel

    assert (private.keeps_state(MambaForCausalLM), private.keeps_state(LlamaForCausalLM)) == (True, False)
    for name in ("_can_compile_fullgraph", "_supports_attention_backend"):
        assert name in vars(PreTrainedModel)  # else all answer alike
    assert private.takes_static_cache(LlamaForCausalLM)
    assert private.takes_paged_cache(LlamaForCausalLM)


@canary("casting rounds what an architecture keeps in float32, so its output is wrong (T5)")
def kept_in_float32() -> None:
    from transformers import PreTrainedModel, T5Model

    assert {"_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"} <= set(vars(PreTrainedModel))
    assert private.kept_in_float32(T5Model, of_float16=True) == {"wo"}
    assert private.kept_in_float32(T5Model, of_float16=False) == set()


@canary("the positions of a model that hears are those of its samples")
def sound_positions() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    with torch.device("meta"):
        lengths = private.sound_positions(Wav2Vec2Model(Wav2Vec2Config()))
    assert lengths is not None
    assert int(lengths(16000)) == 49
    assert private.sound_positions(llama()) is None


@canary("the attention pass, continuous batching, and keys of kept graphs", "attention_implementation", "remember_attention")
def attention() -> None:
    model = llama()
    before = private.attention_implementation(model.config)
    restore = private.remember_attention(model)
    model.set_attn_implementation("eager")
    assert (before, private.attention_implementation(model.config)) == ("sdpa", "eager")
    restore()
    assert private.attention_implementation(model.config) == before
    assert private.attention_implementation(types.SimpleNamespace()) is None


@canary("architectures with no auto class of their own cannot be built with random weights")
def from_config() -> None:
    config = llama().config
    for made in (AutoModelForCausalLM, LlamaForCausalLM):
        assert isinstance(private.from_config(made)(config, dtype=torch.bfloat16), LlamaForCausalLM)


@canary("a model's own settings for generation are told as changes", "ORIGIN_MARK")
def origin_mark() -> None:
    assert getattr(GenerationConfig.from_model_config(llama().config), ORIGIN_MARK) is True


@canary(
    "positions before a token count as none, caches have no size, compiled steps and other engines have no cache",
    "CACHE_NAMES",
    "cache_field",
    "cache_argument",
    "cache_given",
    "cache_left",
)
def cache_names() -> None:
    model, ids, given = llama(), torch.ones(1, 2, dtype=torch.long), []
    model.register_forward_pre_hook(lambda _, args, kwargs: given.append(private.cache_given(kwargs)), with_kwargs=True)
    cache = private.cache_left(model.generate(ids, min_new_tokens=2, max_new_tokens=2, return_dict_in_generate=True))
    assert (cache is not None, given) == (True, [cache, cache])
    name = private.cache_argument(model)
    assert name in private.CACHE_NAMES
    output = model(ids, **{name: cache})
    assert private.cache_left(output) is output[private.cache_field()] is cache
    takes_anything = types.SimpleNamespace(forward=lambda **_: None)
    assert private.cache_argument(takes_anything) == private.cache_field()
    assert private.cache_left(BaseModelOutput(last_hidden_state=ids)) is private.cache_given({}) is None


@canary("after a long request every static cache is as long as that one's")
def forget_longest_cache() -> None:
    model = llama()
    model.generate(torch.ones(1, 2, dtype=torch.long), max_new_tokens=2, cache_implementation="static", disable_compile=True)
    assert "_previous_max_cache_length" in vars(model)
    private.forget_longest_cache(model)
    assert "_previous_max_cache_length" not in vars(model)


@canary("continuous batching", "batch_processor", "generation_step")
def continuous_batching() -> None:
    """The calls themselves are made in test_continuous_batching."""
    from transformers.generation.continuous_batching import continuous_api

    assert callable(continuous_api.ContinuousBatchingManager._create_batch_processor)
    assert callable(continuous_api.ContinuousBatchProcessor._generation_step)


@canary("ONNX Runtime as an engine")
def onnx_outputs() -> None:
    from transformers.exporters.runners.runner_onnx import OnnxModelRunner

    assert callable(OnnxModelRunner._read_outputs)


@canary("OpenVINO's operations are not told by layer")
def seeing_openvino_conversions() -> None:
    from transformers.exporters import exporter_openvino

    plain, seen = exporter_openvino._convert_to_openvino, []
    with private.seeing_openvino_conversions(seen.append):
        with pytest.raises(AttributeError):
            exporter_openvino._convert_to_openvino("a graph")
        assert seen == ["a graph"]
    assert exporter_openvino._convert_to_openvino is plain


# -- what instruments use -------------------------------------------------------------------------------------------------


@canary("layer clocks cost a frame a call more", "CALL_SLOT")
def call_slot() -> None:
    module = torch.nn.Identity()
    module.__dict__[of_instruments.CALL_SLOT] = lambda _: "instead"
    assert module(1) == "instead"


@canary(
    "compiled graphs are made of the model itself, and everything put on its layers compiles them anew",
    "children_of",
    "share_children",
)
def children() -> None:
    module = torch.nn.Sequential(torch.nn.Identity())
    module.add_module("empty", None)
    assert list(of_instruments.children_of(module)) == ["0", "empty"]
    of_instruments.share_children(module, {})
    assert list(module.children()) == []


@canary(
    "projections with hooks are merged and pass them by; clocks stand where hooks are", "has_forward_hooks", "has_any_hooks"
)
def hooks() -> None:
    module = torch.nn.Identity()
    assert not of_instruments.has_forward_hooks(module)
    assert not of_instruments.has_any_hooks(module)
    for make, forward in (
        (lambda: module.register_forward_hook(lambda *_: None), True),
        (lambda: module.register_forward_pre_hook(lambda *_: None), True),
        (lambda: module.register_full_backward_hook(lambda *_: None), False),
        (lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: None), False),
        (lambda: torch.nn.modules.module.register_module_full_backward_pre_hook(lambda *_: None), False),
    ):
        handle = make()
        try:
            assert of_instruments.has_any_hooks(module)
            assert of_instruments.has_forward_hooks(module) is forward
        finally:
            handle.remove()


@canary("operators belong to no layer")
def record_label() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found, of_instruments.record_label()("me"):
        torch.ones(1).exp()
    assert "me" in {event.name() for event in found.profiler.kineto_results.events()}


@canary("ticks are dropped from compiled graphs, since nobody uses what they give")
def keep_in_order() -> None:
    from torch._higher_order_ops.effects import _get_effect

    from profilers.tick_op import tick_operator

    assert _get_effect(tick_operator()) is not None


@pytest.mark.parametrize("name", sorted(CANARIES))
def test_it_is_still_there(name: str) -> None:
    CANARIES[name]()


def test_every_name_has_a_canary() -> None:
    said = set()
    for path in TABLES:
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.FunctionDef):
                said.add(node.name)
            elif isinstance(node, ast.Assign):
                said |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    assert said == set(CANARIES)


# -- nobody else names one ------------------------------------------------------------------------------------------------

PRIVATE = re.compile(r"_[a-z]\w*|torch\.(\w+\.)*(_\w+|ao)(\.\w+)*")
LIBRARIES = ("torch", "transformers", "accelerate")
OTHERS = {"_replace", "_exit", "_current_frames", "_ArgumentGroup", "_ActionsContainer"}
"""Python's own: ``NamedTuple._replace``, ``os._exit``, ``sys._current_frames``, and argparse's types of a group."""


def others_private_names(tree: ast.Module) -> Iterator[str]:
    """Underscored names in a module that are not of its own classes, and whatever it says of ``torch.ao`` and the like."""
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _of_self(node.value)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            private_name = re.fullmatch(r"_[A-Za-z]\w*", node.attr)
            if (private_name and not _of_self(node.value) and node.attr not in own | OTHERS) or ast.unparse(node) == "torch.ao":
                yield node.attr
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (name for name in _imported(node) if name.startswith(LIBRARIES) and re.search(r"\._|\.ao\b", name))
        elif isinstance(node, (ast.Call, ast.Subscript)):
            yield from (
                text
                for text in set(_looked_up(node)) - own
                if re.fullmatch(r"_[a-z]\w*|torch\.(\w+\.)*(_\w+|ao)(\.\w+)*", text)
            )


def _of_self(node: ast.expr) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _looked_up(node: ast.Call | ast.Subscript) -> list[str]:
    """Names in ``getattr`` and its like, in ``get`` and ``pop`` of a dict, and between brackets."""
    if isinstance(node, ast.Subscript):
        found = [node.slice]
    else:
        called = ast.unparse(node.func).rpartition(".")[2]
        found = node.args if called in ("getattr", "hasattr", "setattr", "delattr", "get", "pop") else []
    return [one.value for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def test_nobody_else_names_one() -> None:
    found = {}
    for name, _, tree in modules():
        if name not in TABLES and (names := sorted(set(others_private_names(tree)))):
            found[name] = names
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import torch._dynamo",
        "from torch._guards import tracing",
        "from torch.fx.experimental import _config",
        "torch._int_mm(a, b)",
        "torch.ao.quantization",
        "module._parameters",
        "getattr(model, '_is_stateful', False)",
        "model.__dict__.pop('_previous', None)",
        "vars(model)['_modules']",
        "sys.modules.get('torch._dynamo.utils')",
    ],
)
def test_each_way_to_name_one_is_seen(code: str) -> None:
    assert list(others_private_names(ast.parse(code)))


@pytest.mark.parametrize("code", ["self._mine", "import torch.nn", "found._replace(a=1)", "values['_']", "super()._theirs()"])
def test_what_is_no_private_name_is_none(code: str) -> None:
    assert not list(others_private_names(ast.parse(code)))
