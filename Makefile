PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN := JAX_PLATFORMS=cpu $(BIN)/python

.PHONY: demo test lint bench pods clean

demo: $(VENV)/.demo  ## train both stages on real handwriting and sample, in ten minutes on two cores
	$(RUN) demo.py --out=runs/demo

test: $(VENV)/.test  ## run all tests
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile

lint: $(VENV)/.test  ## style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports

bench: $(VENV)/.bench  ## measure ours beside diffusers in one process
	$(RUN) -m benchmarks.unet_forward
	$(RUN) -m benchmarks.train_step

pods: $(VENV)/.pods  ## compile the SD 1.5 step and sampler for TPU pods, without a TPU
	$(RUN) -m benchmarks.pods

clean:
	rm -rf $(VENV) runs

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ldm_jax needs Python 3.11 or newer; make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) ..."
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[demo,test,pods]'
	touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[demo,parity]'
	touch $@

$(VENV)/.pods: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[pods]'
	touch $@
