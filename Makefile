# Two commands do everything: `make demo` and `make test`. Both install what they need into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EVAL ?= data/eval
PHOTOS ?= data/photos
MINUTES ?= 60
CROPS ?=
# Threads that spin while they wait take the cores from whatever else runs.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint docs dist man train scores sweep papers crops page bench-gpu clean

demo: $(VENV)/installed
	$(BIN)/srx upscale examples out/demo --overwrite
	@echo "The upscaled pictures are in out/demo"

test: $(VENV)/installed-dev lint
	$(BIN)/pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of docs/ and the reference of the API as HTML in out/docs; a warning is an error.
docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs out/docs

# The wheel in dist/, with weights, manual page and completion: pip, pipx and uv install it.
dist: $(VENV)/installed
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# The manual page and the completion scripts in docs/share/, from the commands as they are.
man: $(VENV)/installed
	$(BIN)/python docs/manual.py

# Train the shipped networks further on a folder of photographs; stop at any time, the same line goes on.
train: $(VENV)/installed-dev
	$(BIN)/srx train compact $(PHOTOS) --minutes $(MINUTES) --out weights --overwrite
	$(BIN)/srx train embedded $(PHOTOS) --minutes $(MINUTES) --init embedded \
	  --feature-loss 2 --sharpen 0.5 --crop 96 --out weights --overwrite

# The tables of docs/results.md: EVAL holds Set14/HR, drealsr20/LR and drealsr20/HR.
scores: $(VENV)/installed-iqa
	$(BIN)/srx bench $(EVAL)/Set14 $(EVAL)/drealsr20 --markdown \
	  --row '' --row '--steps 2' --row '--steps 3' --row '--steps 4' --row '--steps 5' \
	  --row '--texture 0' --row '--model clean --steps 1' --row '--model clean --steps 2' \
	  --row '--model clean' --row '--model clean --steps 4' \
	  --row '--model clean --steps 5' --row '--model clean --texture 0'

# What holds on this machine's GPU and how fast it is, into BENCHMARKS.md, and the same as JSON.
bench-gpu: $(VENV)/installed
	$(BIN)/srx bench --suite BENCHMARKS.md --device cuda

sweep: $(VENV)/installed-iqa
	$(BIN)/srx sweep-t1 $(EVAL)/Set14/HR --model clean-mse --steps 1,2,3,5,7 --order 1,2,3

# The experiments of both papers that a CPU can do, and their tables in docs/: EVAL holds Set5, Set14 and drealsr20.
papers: $(VENV)/installed-iqa
	$(BIN)/python examples/figures/theory.py
	$(BIN)/python docs/papers.py $(EVAL)

# Crops of many kinds side by side; of your own pictures with CROPS=folder.
crops: $(VENV)/installed-dev
	$(BIN)/python examples/figures/crops.py $(CROPS)

# The pictures of the page of srx compare in README and of the tutorial; they need Chromium.
page: $(VENV)/installed-dev
	$(BIN)/python examples/figures/page.py
	$(BIN)/python examples/figures/tutorial.py

$(VENV)/installed: pyproject.toml
	@echo "Installing into $(VENV): some 6 GB on Linux, of which torch's CUDA is most (docs/install.md: without it)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/installed-iqa: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --editable '.[iqa]'
	@touch $@

clean:
	rm -rf $(VENV) out dist
