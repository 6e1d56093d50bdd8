# Two commands do everything: `make demo` and `make test`. Both install what they need into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EVAL ?= data/eval
PHOTOS ?= data/photos
MINUTES ?= 60

.PHONY: demo test lint train scores figure clean

demo: $(VENV)/installed
	$(BIN)/srx upscale examples out/demo --overwrite
	@echo "The upscaled pictures are in out/demo"

test: $(VENV)/installed-dev lint
	$(BIN)/pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Train the shipped networks on a folder of photographs; stop at any time, the same line goes on.
train: $(VENV)/installed-dev
	$(BIN)/srx train compact $(PHOTOS) --minutes $(MINUTES) --out weights
	$(BIN)/srx train embedded $(PHOTOS) --minutes $(MINUTES) --out weights

# The quality table of README: EVAL holds Set14/HR, drealsr20/LR and drealsr20/HR.
scores: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --editable '.[iqa]'
	$(BIN)/srx scores $(EVAL)/Set14 $(EVAL)/drealsr20

# The pictures of README.
figure: $(VENV)/installed-dev
	$(BIN)/python examples/figures.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out
