# Two commands do it all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo

.PHONY: install demo test test-load lint format clean check-tensorrt check-cupy

install: $(VENV)/.installed

# segmentation-models-pytorch and timm ask for torchvision, whose dependencies would bring a second
# build of torch; they work without them (export/compat.py).
$(VENV)/.installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e '.[server,export,radiomics,bench,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
	  segmentation-models-pytorch timm torchvision
	touch $@

# Exports with random weights, starts Triton, scores four generated X-rays.
demo: install
	$(BIN)/hilum phantom cxr --count 4 --out $(OUT)/xrays
	$(BIN)/hilum export cxr-severity --network lung --network pspnet --weights random \
	  --repository $(OUT)/model_repository
	$(BIN)/hilum run cxr-severity $(OUT)/xrays --network pspnet \
	  --repository $(OUT)/model_repository --out $(OUT)/results
	@echo "Pictures and report: $(OUT)/results"

# The benchmarks' tests compare clocks with theory, so they run alone; of the rest two files at once,
# each with one thread in torch and NumPy: with more they would wait for each other.
test: lint
	$(BIN)/python -m pytest tests/benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  --ignore tests/benchmarks

# Every network at every precision through NVIDIA's parser and compiler: no GPU, but 40 minutes of
# two cores; what has passed is not done again. SYSTEMS="lungmask dlpe" checks only these.
TENSORRT ?= out/tensorrt-rtx
check-tensorrt: install $(TENSORRT)/.installed
	HILUM_TENSORRT=$(TENSORRT) $(BIN)/hilum engines check $(SYSTEMS) --out out/tensorrt-check

$(TENSORRT)/.installed: constraints/tensorrt-rtx.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(TENSORRT) -r constraints/tensorrt-rtx.txt
	touch $@

# Whether CuPy has every function that array work calls, with these arguments; needs no GPU.
CUPY ?= out/cupy
check-cupy: install $(CUPY)/.installed
	PYTHONPATH=$(CUPY) $(BIN)/python -m pytest -k cupy_has tests/preprocessing tests/postprocessing

$(CUPY)/.installed: constraints/cupy.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(CUPY) -r constraints/cupy.txt
	touch $@

# Whole benchmarks on real servers; for a machine that does nothing else.
test-load: install
	$(BIN)/python -m pytest -m load

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist out *.egg-info .pytest_cache .ruff_cache
