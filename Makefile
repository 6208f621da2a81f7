PYTHON ?= python3
VENV := .venv
# Apart, for with the TPU compiler installed JAX looks for a TPU wherever it runs.
DEV := .venv-dev
PYTEST := $(DEV)/bin/python -m pytest -m 'not full_size' --numprocesses=auto --dist=loadfile --no-loadscope-reorder
INSTALL := pip install --quiet --disable-pip-version-check --constraint constraints.txt
CPU := JAX_PLATFORMS=cpu

.PHONY: demo test parity lint bench pods gpus clean

demo: $(VENV)/.demo  ## train both stages on real handwriting and sample, in ten minutes on two cores
	$(CPU) $(VENV)/bin/python demo.py --out=runs/demo

test: $(DEV)/.test  ## run all tests but those that compare with peers
	$(PYTEST) --ignore=tests/parity

parity: $(DEV)/.parity  ## compare with peers: PyTorch, diffusers and transformers live, others' numbers
	HF_HUB_OFFLINE=1 $(PYTEST) tests/parity

lint: $(DEV)/.test  ## style, and who may import whom
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	PYTHONPATH=. $(DEV)/bin/lint-imports

bench: $(DEV)/.parity  ## measure ours beside diffusers in one process
	$(CPU) $(DEV)/bin/python -m benchmarks.unet_forward
	$(CPU) $(DEV)/bin/python -m benchmarks.train_step
	$(CPU) $(DEV)/bin/python -m benchmarks.text2img

pods: $(DEV)/.test  ## compile the SD 1.5 step and sampler for TPU pods, without a TPU
	$(CPU) $(DEV)/bin/python -m benchmarks.pods

gpus: $(DEV)/.gpus  ## compile a small SD's programs for CUDA GPUs, without one, and say what they became
	$(CPU) $(DEV)/bin/python -m benchmarks.gpus --reduced --topology h100:1 h100:8 a100:1

clean:
	rm -rf $(VENV) $(DEV) runs

$(VENV)/bin/python $(DEV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ldm_jax needs Python 3.11 or newer; make PYTHON=python3.x")'
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) ..."
	$(VENV)/bin/$(INSTALL) --editable '.[demo,web]'
	touch $@

$(DEV)/.test: pyproject.toml constraints.txt | $(DEV)/bin/python
	@echo "installing into $(DEV) ..."
	$(DEV)/bin/$(INSTALL) --editable '.[demo,web,test,pods]'
	touch $@

$(DEV)/.parity: $(DEV)/.test
	$(DEV)/bin/$(INSTALL) --editable '.[parity]'
	touch $@

# Two and a half gigabytes, which nothing else needs.
$(DEV)/.gpus: $(DEV)/.test
	$(DEV)/bin/$(INSTALL) --editable '.[gpus]'
	touch $@
