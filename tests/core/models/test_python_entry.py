"""A module of one's own: it runs only when trusted, its inputs are its own or fit it, and its errors name their line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.config import ModelConfig
from core.errors import Refusal
from core.models import catalog
from core.progress import Progress
from tests.core.execution.test_kinds import moment_kinds, run, stages

NET = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.inner = nn.Linear(width, 8)
        self.outer = nn.Linear(8, 3)

    def forward(self, x, scale=1.0):
        return {"scaled": self.outer(self.inner(x).relu()) * scale}
"""


@pytest.fixture
def file(tmp_path: Path):
    """Writes the body of ``make`` and gives the spec."""

    def write(body: str, head: str = NET) -> str:
        path = tmp_path / "own.py"
        path.write_text(f"{head}\ndef make():\n    {body}\n")
        return f"py:{path}:make"

    return write


def refusal(spec: str, *, trust: bool = True, **workload) -> str:
    with pytest.raises(Refusal) as refused:
        run(spec, trust=trust, **workload)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "inputs", ["{'x': torch.ones(1, 5, 6), 'scale': 2.0}", "(torch.ones(1, 5, 6), 2.0)", "torch.ones(1, 5, 6)"]
)
def test_a_module_with_its_own_inputs(file, inputs):
    done = run(file(f"return Net(), {inputs}"), trust=True, batch=2)
    assert moment_kinds(done) == ["forward", "forward"]
    assert done.trace.requests["input_tokens"].tolist() == [5, 5]
    assert [layer.path for layer in done.trace.layers] == ["", "inner", "outer"]
    output = done.trace.outputs[0]
    assert len(output.values) == 5 * 3
    assert output.text == "tensor [2, 5, 3] float32"
    facts = done.facts.model
    assert (facts.task, facts.parameters, facts.layers) == ("module", 6 * 8 + 8 + 8 * 3 + 3, None)
    assert facts.name == "make of own.py"


def test_inputs_that_fit_the_first_layer(file):
    assert run(file("return Net()"), trust=True, prompt_tokens=4).trace.outputs[0].text == "tensor [1, 4, 3] float32"
    words = run(file("return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))"), trust=True, prompt_tokens=3)
    assert words.trace.outputs[0].text == "tensor [1, 3, 2] float32"
    image = run(file("return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())"), trust=True, image_size=8)
    assert image.trace.outputs[0].text == "tensor [1, 4, 6, 6] float32"
    assert stages(image)["0"]
    assert "cannot be guessed; let the function return (module, example_inputs)" in refusal(file("return nn.ReLU()"))


def test_weights_follow_the_seed_and_the_dtype(file):
    spec = file("return Net(), torch.ones(1, 6)")

    def load(**settings):
        return catalog.load(ModelConfig(spec, trust_remote_code=True, **settings), "cpu", Progress())

    state = torch.get_rng_state()
    first, again, other = load(seed=1), load(seed=1), load(seed=2)
    assert torch.equal(first.model.inner.weight, again.model.inner.weight)
    assert not torch.equal(first.model.inner.weight, other.model.inner.weight)
    assert torch.equal(torch.get_rng_state(), state)
    small = load(dtype="bfloat16")
    assert {small.model.inner.weight.dtype, small.example["x"].dtype} == {torch.bfloat16}
    assert not first.model.training


def test_nothing_runs_without_trust(file, tmp_path):
    trace = tmp_path / "ran"
    spec = file("return Net()", f"{NET}\nopen({str(trace)!r}, 'w').close()\n")
    assert "read it, and if you trust it switch on trust_remote_code" in refusal(spec, trust=False)
    assert not trace.exists()
    code = (
        "import sys; from core.models import catalog; from core.config import ModelConfig\n"
        f"facts = catalog.describe(ModelConfig({spec!r}, trust_remote_code=True))\n"
        "assert facts.parameters is None and facts.task == 'module'\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1 / 0", "own.py failed in line 14 in make() (ZeroDivisionError: division by zero)"),
        ("raise SystemExit(3)", "own.py failed in line 14 in make() (SystemExit: 3)"),
        ("return Net", "make of own.py returned a type, not an nn.Module"),
        ("return Net(), (torch.ones(1, 6), 1.0, 2.0)", "are 3, but forward names 2"),
        ("return Net(), {'x': torch.ones(2, 6)}", "have a batch of their own; set the batch to 1"),
        ("return nn.Identity(), ([],)", "gave list without a tensor"),
    ],
)
def test_what_is_wrong_with_the_function(file, body, says):
    assert says in refusal(file(body), batch=1 if "Identity" in body else 2)


def test_what_is_wrong_with_the_file(file, tmp_path):
    spec = file("return Net()", "import torch\nimport no_such_library_here\n")
    assert "own.py failed in line 2 while it was run (ModuleNotFoundError: No module" in refusal(spec)
    assert "own.py is not valid Python in line 1" in refusal(file("return Net()", "def broken(:"))
    assert "own.py has no function 'other'; it has Net, make" in refusal(file("return Net()").replace(":make", ":other"))
    assert "write py:FILE.py:FUNCTION" in refusal(f"py:{tmp_path / 'own.py'}")
    assert "There is no file" in refusal(f"py:{tmp_path / 'nowhere.py'}:make")
    assert "is not a function" in refusal(file("return 1", f"{NET}\nvalue = 3").replace(":make", ":value"))


def test_an_error_inside_forward_is_told_with_its_layer(file):
    with pytest.raises(RuntimeError) as failed:
        run(file("return Net(), torch.ones(1, 7)"), trust=True)
    assert "in layer inner" in str(failed.value.tickscope_sentence)


def test_files_beside_it_can_be_imported(file, tmp_path):
    (tmp_path / "beside_own.py").write_text("WIDTH = 6\n")
    path = list(sys.path)
    assert run(file("return Net(WIDTH)", f"from beside_own import WIDTH\n{NET}"), trust=True, prompt_tokens=2).facts.model
    assert sys.path == path
