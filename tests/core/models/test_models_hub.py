"""Hub models: from the cache, downloaded from a small hub on this machine, and every way it fails as its own sentence."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core.config import ModelConfig
from core.errors import Cancelled, Refusal
from core.models import catalog, hub
from core.progress import Progress
from tests.support.tiny_models import save_model, save_tokenizer

SHA = "a" * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "model"
    save_model(folder)
    save_tokenizer(folder)
    (folder / "flax_model.msgpack").write_text("not needed")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


class FakeHub:
    """The three questions of the hub that a download asks, answered from a folder."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.error: tuple[int, str] | None = None
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # no connection outlives its answer, and so no thread the test

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                status, headers, content = hub.reply(self.path.partition("?")[0], body)
                self.send_response(status)
                for key, value in {"X-Repo-Commit": SHA, "Content-Length": str(len(content)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def reply(self, path: str, body: bool) -> tuple[int, dict[str, str], bytes]:
        if self.error:
            status, code = self.error
            return status, {"X-Error-Code": code, "X-Error-Message": code}, b""
        if "/resolve/" in path:
            name = path.rpartition("/")[2]
            if body:
                self.fetched.append(name)
            return 200, {"ETag": f'"{name}"'}, (self.folder / name).read_bytes()
        sizes = {file.name: file.stat().st_size for file in sorted(self.folder.iterdir())}
        if "/tree/" in path:
            rows = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
            return 200, {}, json.dumps(rows).encode()
        siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        return 200, {}, json.dumps({"id": "org/tiny", "sha": SHA, "siblings": siblings}).encode()


@pytest.fixture
def server(model, cache, monkeypatch):
    from huggingface_hub import constants

    fake = FakeHub(model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}")
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def load(spec="hub:org/tiny", progress=None, **settings):
    return catalog.load(ModelConfig(spec, **settings), "cpu", progress or Progress())


def refusal(spec="hub:org/tiny", **settings) -> str:
    with pytest.raises(Refusal) as described:
        catalog.describe(ModelConfig(spec, **settings))
    with pytest.raises(Refusal) as loaded:
        load(spec, **settings)
    assert str(described.value) == str(loaded.value)
    return str(loaded.value)


def put_into_cache(cache, model) -> None:
    repository = cache / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    shutil.copytree(model, repository / "snapshots" / SHA)


def test_from_the_cache_offline(model, cache, offline):
    put_into_cache(cache, model)
    config = ModelConfig("hub:org/tiny")
    loaded = load()
    assert loaded.facts.name == "tiny"
    assert loaded.facts.spec == "hub:org/tiny"
    assert loaded.tokenizer is not None
    assert catalog.describe(config).parameters == loaded.facts.parameters
    assert load(f"hub:org/tiny@{SHA}").facts.parameters == loaded.facts.parameters
    assert "hub:org/tiny" in [listing.spec for listing in catalog.listings()]


def test_offline_and_not_whole(model, cache, offline):
    assert "is not in the local cache and HF_HUB_OFFLINE forbids downloading it" in refusal()
    put_into_cache(cache, model)
    (cache / "models--org--tiny" / "snapshots" / SHA / "model.safetensors").unlink()
    assert "has a config.json but no weights" in refusal()


def test_describe_then_download_what_is_needed_then_use_the_cache(server, model, capfd):
    described = catalog.describe(ModelConfig("hub:org/tiny"))
    assert server.fetched == ["config.json"]
    reports = []

    class Noted(Progress):
        def report(self, doing=None, fraction=None):
            reports.append((str(doing), fraction))
            super().report(doing, fraction)

    loaded = load(progress=Noted())
    assert capfd.readouterr() == ("", "")
    assert sorted(set(server.fetched)) == sorted(
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    )
    downloading = [fraction for text, fraction in reports if text == "Downloading org/tiny"]
    assert downloading[-1] == pytest.approx(1)
    assert (described.task, described.layers, described.file_bytes) == (
        "text-generation",
        2,
        (model / "model.safetensors").stat().st_size,
    )
    assert described.parameters == pytest.approx(loaded.facts.parameters, rel=0.2)
    server.error = (500, "Down")
    assert load().facts.parameters == loaded.facts.parameters


def test_cancel_while_downloading(server):
    class CancelAtBytes(Progress):
        def report(self, doing=None, fraction=None):
            if str(doing).startswith("Downloading"):
                self.cancelled.set()
            super().report(doing, fraction)

    with pytest.raises(Cancelled):
        load(progress=CancelAtBytes())
    assert load().facts.parameters


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "RepoNotFound", "The hub has no model org/tiny, or it is private"),
        (404, "RepoNotFound", "The hub has no model org/tiny, or it is private"),
        (403, "GatedRepo", "org/tiny is gated: accept its terms on its hub page"),
        (404, "RevisionNotFound", "org/tiny has no revision 'v9'"),
        (503, "Busy", "The hub answered 503 when asked for org/tiny; try again later"),
    ],
)
def test_what_the_hub_refuses(server, status, code, says):
    server.error = (status, code)
    assert says in refusal("hub:org/tiny@v9")


def test_no_network(server):
    server.server.shutdown()
    server.server.server_close()
    assert "The hub cannot be reached and org/tiny is not in the local cache; check the network" in refusal()


def test_pickles_and_code_are_not_even_downloaded_unless_allowed():
    names = ["config.json", "pytorch_model.bin", "own.py", "onnx/model.onnx", "tokenizer.json", "README.md"]
    with pytest.raises(Refusal, match="has only pickled weights"):
        hub.needed_files(names, "org/tiny", ModelConfig("x"))
    allowed = hub.needed_files(names, "org/tiny", ModelConfig("x", allow_pickle=True))
    assert allowed == ["config.json", "pytorch_model.bin", "tokenizer.json"]
    assert "own.py" in hub.needed_files(names, "org/tiny", ModelConfig("x", allow_pickle=True, trust_remote_code=True))
    both = hub.needed_files([*names, "model.safetensors", "consolidated.safetensors"], "org/tiny", ModelConfig("x"))
    assert both == ["config.json", "model.safetensors", "tokenizer.json"]
    with pytest.raises(Refusal, match="download its GGUF file and open that"):
        hub.needed_files(["model.gguf"], "org/tiny", ModelConfig("x"))
