"""A model's work: the products of its layers, quantised ones included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.model_parts.linears import is_linear, output_head
from core.models import experts
from core.quantization.product_form import ProductForm
from core.records.roofline import LayerProduct, MatMul

if TYPE_CHECKING:
    import torch

_ONCE = ("vision", "visual", "audio", "image_", "multi_modal", "connector")
"""In paths of what runs once, in models of images or sound and text."""


def work_of(model: torch.nn.Module, casts_to: str | None = None) -> list[MatMul]:
    """Every layer that multiplies with a weight. Embeddings, which only look rows up, norms and convolutions are left out.

    Args:
        model: with the passes so far.
        casts_to: the dtype into which autocast casts each weight on every call; None: there is no autocast.
    """
    head = output_head(model)
    once = once_paths(model)
    found = []
    for path, module in model.named_modules():
        product = _product(path, module)
        if product is None:
            continue
        if casts_to is not None and product.form == "float32":
            size = product.held_bytes * 2 // 4
            product = replace(
                product,
                form=f"float32 cast to {casts_to}",
                direct_rows=0,
                unpacked_bytes=size,
                unpacked_arithmetic=casts_to,
            )
        found.append(replace(product, head=module is head, once=path.startswith(once) if once else False))
    return found


def layer_products(model: torch.nn.Module) -> dict[str, LayerProduct]:
    """What a session keeps of ``work_of``, by path."""
    return {
        one.path: LayerProduct(one.macs, one.held_bytes, one.arithmetic, one.share, one.head, one.once)
        for one in work_of(model)
    }


def _product(path: str, module: Any) -> MatMul | None:
    """The layer as a product, by its class; None where it multiplies with no weight."""
    if is_linear(module):
        transposed = hasattr(module, "nx")
        inputs, outputs = (module.nx, module.nf) if transposed else (module.in_features, module.out_features)
        name = _dtype(module.weight)
        return MatMul(path, inputs, outputs, inputs * outputs, module.weight.nbytes, name, name)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return _quantised(path, module)
    return _experts(path, module)


def _quantised(path: str, module: Any) -> MatMul | None:
    """A layer that holds its weight in another form: Tickscope's own, torch's, bitsandbytes'."""
    inputs, outputs = int(module.in_features), int(module.out_features)
    held = sum(tensor.nbytes for name, tensor in _tensors(module) if name != "bias")
    whole = MatMul(path, inputs, outputs, inputs * outputs, held, "", "")
    origin = type(module).__module__
    if torch_private.is_of_torch_ao(module):  # a scale and a zero point per output; asking for the weight would unpack it
        return replace(whole, held_bytes=whole.macs + 16 * outputs, form="int8 (torch.ao)", arithmetic="int8")
    if origin.startswith("bitsandbytes"):
        return _bitsandbytes(whole, module)
    if hasattr(module, "as_product"):
        return _own(whole, module.as_product())
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2:
        return None
    return replace(whole, form=_dtype(weight), arithmetic=_dtype(weight))


def _own(whole: MatMul, held: ProductForm) -> MatMul:
    """A layer that says itself how it multiplies."""
    unpacked_bytes = whole.inputs * whole.outputs * (4 if held.unpacks_to == "float32" else 2) if held.unpacks_to else 0
    return replace(
        whole,
        macs=whole.macs * held.passes,
        form=held.form,
        arithmetic=held.arithmetic,
        direct_rows=held.direct_rows,
        unpacked_bytes=unpacked_bytes,
        unpacked_arithmetic=held.unpacks_to,
    )


def _bitsandbytes(whole: MatMul, module: Any) -> MatMul:
    form = f"bitsandbytes {type(module).__name__}"
    if type(module).__name__ == "Linear8bitLt":
        return replace(whole, held_bytes=whole.macs + 4 * whole.outputs, form=form, arithmetic="int8")
    scales = getattr(getattr(module.weight, "quant_state", None), "absmax", None)
    held = whole.held_bytes + (0 if scales is None else int(scales.nbytes))
    return replace(whole, held_bytes=held, form=form, arithmetic="bfloat16")


def _experts(path: str, module: Any) -> MatMul | None:
    """The stacked weights of experts, of which a row goes through a few; None for any other module."""
    stacked = [weight for weight in torch_private.own_parameters(module).values() if weight is not None and weight.dim() == 3]
    count = int(getattr(module, "num_experts", 0) or 0)
    if not stacked or not count:
        return None
    config: Any = getattr(module, "config", None)
    used = (experts.chosen(config.to_dict()) if hasattr(config, "to_dict") else None) or count
    share = min(1.0, used / count)
    numbers, name = sum(weight.numel() for weight in stacked), _dtype(stacked[0])
    size = sum(weight.nbytes for weight in stacked)
    return MatMul(path, 0, 0, round(share * numbers), size, name, name, share=share)


def _tensors(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def once_paths(model: Any) -> tuple[str, ...]:
    """The beginnings of the paths of what runs once and not for each token."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
        encoder = model.get_encoder()
        return tuple(f"{path}." for path, module in model.named_modules() if module is encoder)
    if not any(hasattr(config, name) for name in ("vision_config", "audio_config")):
        return ()
    return tuple(f"{path}." for path, _ in model.named_modules() if any(word in path.rpartition(".")[2] for word in _ONCE))
