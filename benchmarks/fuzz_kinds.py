"""The kinds of files that somebody else may have made, each with a sound one to begin with and the reader that opens it."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.mutations import mutated_bytes, mutated_json
from core.config import ModelConfig, QualityConfig
from core.models import catalog
from core.progress import Progress

SHAPE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "num_key_value_heads": 1,
    "head_dim": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "use_cache": True,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "transformers_version": "5.23.0",
    **SHAPE,
}
GENERATION = {"bos_token_id": 1, "eos_token_id": [2], "pad_token_id": 0, "temperature": 0.7, "top_k": 5, "do_sample": True}
TOKENIZER_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "[UNK]",
    "model_max_length": 30,
    "padding_side": "left",
    "added_tokens_decoder": {"0": {"content": "[UNK]", "special": True}},
    "clean_up_tokenization_spaces": False,
    "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "model_input_names": ["input_ids"],
}


@dataclass(frozen=True)
class Kind:
    """``make_in`` puts what else is needed into an empty folder and gives the bytes of a sound ``file``, which is changed."""

    name: str
    file: str
    make_in: Callable[[Path], bytes]
    reader: Callable[[Path], object]
    change: Callable[[bytes, random.Random], bytes]
    others: Sequence[str] = ()  # names besides the file's and the folder's that a sentence may have
    libraries: Sequence[str] = field(default=())

    @property
    def suffix(self) -> str:
        return Path(self.file).suffix

    def make(self, folder: Path) -> bytes:
        data = self.make_in(folder)
        self.put(folder, data)
        return data

    def put(self, folder: Path, data: bytes) -> None:
        (folder / self.file).write_bytes(data)

    def read(self, folder: Path) -> None:
        self.reader(folder / self.file)

    def names(self, folder: Path) -> Sequence[str]:
        return (self.file, folder.name, *self.others)

    def warm_up(self) -> None:
        """What takes seconds the first time is no hang; and the sound file must be taken, or nothing is tested."""
        for name in self.libraries:
            __import__(name)
        with tempfile.TemporaryDirectory(prefix="given-file") as place:
            self.make(Path(place))
            self.read(Path(place))


def _of_bytes(data: bytes, dice: random.Random) -> bytes:
    return mutated_bytes(data, dice)


def _of_json(data: bytes, dice: random.Random) -> bytes:
    return mutated_json(data.decode(), dice)


def _of_lines(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines()
    place = dice.randrange(len(lines))
    lines[place] = mutated_json(lines[place].decode(), dice)
    return b"\n".join(lines)


def _of_header(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file: its JSON, mostly with a length that is right, or any of its bytes."""
    if dice.random() < 0.3:
        return mutated_bytes(data, dice)
    (length,) = struct.unpack_from("<Q", data)
    header = mutated_json(data[8 : 8 + length].decode(), dice)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


# -- sound files ----------------------------------------------------------------------------------------------------------


def _weights() -> bytes:
    """A llama's tensors in the safetensors format, all zero."""
    size, inner, words = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["vocab_size"]
    block = {"self_attn.q_proj": (size, size), "self_attn.k_proj": (4, size), "self_attn.v_proj": (4, size)}
    block |= {"self_attn.o_proj": (size, size), "mlp.gate_proj": (inner, size), "mlp.up_proj": (inner, size)}
    block |= {"mlp.down_proj": (size, inner)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, size), "model.norm.weight": (size,)}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in block.items()}
    shapes |= {f"model.layers.0.{name}.weight": (size,) for name in ("input_layernorm", "post_attention_layernorm")}
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def _folder(place: Path) -> None:
    """A whole model folder with a tokenizer of 64 words."""
    (place / "model.safetensors").write_bytes(_weights())
    (place / "config.json").write_text(json.dumps(LLAMA))
    (place / "generation_config.json").write_text(json.dumps(GENERATION))
    (place / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (place / "tokenizer.json").write_bytes(_tokenizer())


def _tokenizer() -> bytes:
    words = {word: number for number, word in enumerate(["[UNK]", "<s>", "</s>", *(f"w{i}" for i in range(61))])}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    whole |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": model}
    return json.dumps(whole).encode()


def _within(name: str) -> Callable[[Path], bytes]:
    """The file of that name of a whole folder."""

    def make(place: Path) -> bytes:
        _folder(place)
        return (place / name).read_bytes()

    return make


def _index(place: Path) -> bytes:
    _folder(place)
    shutil.move(place / "model.safetensors", place / "model-00001-of-00001.safetensors")
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    return json.dumps(
        {"metadata": {"total_size": 4096}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    ).encode()


def _gguf_file(place: Path) -> bytes:
    import gguf
    import numpy as np

    path = place / "made.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_block_count, 1),
        (writer.add_context_length, 32),
        (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 32),
        (writer.add_head_count, 4),
        (writer.add_vocab_size, 16),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)  # type: ignore[operator]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(16)])
    for name in ("token_embd", *(f"blk.0.{part}" for part in ("attn_q", "attn_k", "ffn_up"))):
        writer.add_tensor(f"{name}.weight", np.zeros((16, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _sound(place: Path) -> bytes:
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setparams((2, 2, 8_000, 0, "NONE", "not compressed"))
        file.writeframes(bytes(range(200)) * 8)
    return into.getvalue()


def _image(form: str) -> Callable[[Path], bytes]:
    def make(place: Path) -> bytes:
        from PIL import Image

        into = io.BytesIO()
        Image.linear_gradient("L").resize((24, 24)).convert("RGB").save(into, form)
        return into.getvalue()

    return make


# -- readers --------------------------------------------------------------------------------------------------------------


def _describe(path: Path) -> object:
    return catalog.describe(ModelConfig(str(path.parent)))


def _load(path: Path) -> object:
    from core.config import WorkloadConfig
    from core.execution.tasks.base import form_of

    loaded = catalog.load(ModelConfig(str(path.parent)), "cpu", Progress())
    return form_of(loaded, WorkloadConfig(prompt="w1 w2"), "cpu").length()


def _labels(path: Path) -> object:
    from core.execution.eval_data import read_material

    return read_material(QualityConfig(labels=str(path)))


def _read_sound(path: Path) -> object:
    from core.execution.tasks.sounds import read_wav

    return read_wav(str(path), 16_000)


def _read_picture(path: Path) -> object:
    from core.execution.tasks.pictures import read_image

    return read_image(str(path))


def _prompt(path: Path) -> object:
    from core.commands.configure import read_prompt

    return read_prompt(path)


def _python_entry(path: Path) -> object:
    return catalog.describe(ModelConfig(f"py:{path}:make", trust_remote_code=True))


JSONL = b'{"text": "a good day", "label": "1"}\n{"text": "a bad one", "label": 0}\n{"image": "cat.png", "label": "cat"}'
CSV = b'text,label\n"a good, long day",1\nbad,0\n"with ""quotes""",1\n'
PYTHON = b"import torch\n\n\ndef make():\n    return torch.nn.Linear(4, 4), (torch.zeros(1, 4),)\n"
TORCH = ("torch", "transformers")

KINDS = {
    kind.name: kind
    for kind in (
        Kind("gguf", "made.gguf", _gguf_file, lambda path: catalog.describe(ModelConfig(str(path))), _of_bytes),
        Kind("safetensors", "model.safetensors", _within("model.safetensors"), _describe, _of_header),
        Kind("config", "config.json", _within("config.json"), _describe, _of_json),
        Kind("index", "model.safetensors.index.json", _index, _describe, _of_json),
        Kind("labels-jsonl", "labels.jsonl", lambda _: JSONL, _labels, _of_lines),
        Kind("labels-csv", "labels.csv", lambda _: CSV, _labels, _of_bytes),
        Kind("prompt", "prompt.txt", lambda _: "Zwölf Boxkämpfer – 東京\n".encode() * 5, _prompt, _of_bytes),
        Kind("python", "entry.py", lambda _: PYTHON, _python_entry, _of_bytes),
        Kind("sound", "tone.wav", _sound, _read_sound, _of_bytes),
        *(
            Kind(
                f"image-{form.lower()}",
                f"given.{form.lower()}",
                _image(form),
                _read_picture,
                _of_bytes,
                libraries=("PIL.Image",),
            )
            for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
        ),
        # whole loads, through transformers: 5 to 20 a second
        Kind("load-config", "config.json", _within("config.json"), _load, _of_json, libraries=TORCH),
        Kind(
            "load-generation",
            "generation_config.json",
            _within("generation_config.json"),
            _load,
            _of_json,
            ("LlamaForCausalLM",),
            TORCH,
        ),
        Kind(
            "load-tokenizer-config", "tokenizer_config.json", _within("tokenizer_config.json"), _load, _of_json, libraries=TORCH
        ),
        Kind("load-tokenizer", "tokenizer.json", _within("tokenizer.json"), _load, _of_json, libraries=TORCH),
    )
}
