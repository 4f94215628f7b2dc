# make demo · test · test-browser · check · app · test-anywhere · bench-model · bench · bench-gpu · bench-refactor · bench-render · bench-serving · bench-live
# make fuzz · kills · circle · eval-synthetic · tables · metric-sanity · ablations · bench-personal

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-anywhere check bench bench-gpu bench-model bench-refactor bench-render eval-synthetic metric-sanity tables

demo: .venv/core
	$(BIN)/skyreels-audio generate

.PHONY: app bench-serving bench-live

# The page, on this machine's port 7860.
app: .venv/app
	$(BIN)/skyreels-audio app

# The server under load, kills and malformed uploads (QUICK=1: a few of each); what a live face costs.
bench-serving: .venv/development
	$(BIN)/python benchmarks/serving.py $(if $(QUICK),--quick)

bench-live: .venv/development
	$(BIN)/python benchmarks/live.py

test: .venv/development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS)

# The page and the study in a browser, whole: minutes on a busy machine.
.PHONY: test-browser
test-browser: .venv/development
	BROWSER_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/app/test_browser.py tests/evaluation/test_study.py

# The suite in random orders, with the instructions of older processors too: no test may rest on rounding, order or speed.
# What torch has compiled for one of them it would take for another.
SEEDS ?= 20
test-anywhere: .venv/development
	for seed in $$(seq $(SEEDS)); do for capability in default avx2 ''; do \
		echo "seed $$seed, processor: $${capability:-this one}"; \
		env OMP_NUM_THREADS=1 $${capability:+ATEN_CPU_CAPABILITY=$$capability} \
			TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.venv/compiled-$${capability:-native} $(BIN)/python -m pytest \
			-p randomly --randomly-seed=$$seed --numprocesses $(JOBS) || exit 1; \
	done; done

check: .venv/development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# What weights/tiny reaches, on people, voices and sentences it never saw → docs/results/. PHOTOGRAPHS=folder adds real faces, QUICK=1 takes few.
bench-model: .venv/development
	$(BIN)/python benchmarks/model.py $(if $(PHOTOGRAPHS),--photographs $(PHOTOGRAPHS)) $(if $(QUICK),--quick)

# How fast it is, each figure with its baseline in the same run; the chart of docs/performance.md.
bench: .venv/development
	$(BIN)/python benchmarks/speed.py --chart docs/performance.svg

# A 14B model with random weights on one GPU, nothing downloaded → docs/results/gpu.md. MODEL=folder: what its cache skips.
bench-gpu: .venv/development
	$(BIN)/python benchmarks/gpu.py $(if $(MODEL),--model $(MODEL))

# That this tree makes the videos that OLD_COMMIT made, compared before the codec → docs/results/refactor.md.
bench-refactor: .venv/development
	$(BIN)/python benchmarks/refactor.py $(OLD_COMMIT)

bench-render: .venv/development
	$(BIN)/python benchmarks/render_speed.py

# The paper's Table 1 offline, on drawn people and FOOTAGE=folder of recordings → docs/results/evaluation.md.
eval-synthetic: .venv/development
	$(BIN)/python benchmarks/eval_synthetic.py --workers $(JOBS) $(if $(FOOTAGE),--footage $(FOOTAGE))

# Whether each metric notices its own faults, and only these → docs/results/metric_sanity.md.
metric-sanity: .venv/development
	$(BIN)/python benchmarks/metric_sanity.py $(if $(FOOTAGE),--footage $(FOOTAGE))

# The paper's tables beside our figures → docs/results/tables.md.
tables: .venv/development
	$(BIN)/python benchmarks/tables.py

# Audio guidance, audio RoPE, joint training and the mask loss at tiny scale → docs/results/ablations.md.
.PHONY: ablations
ablations: .venv/development
	$(BIN)/python benchmarks/ablations.py

# A LoRA of weights/tiny for the speaker of FOOTAGE=data/talking, and what it gains → docs/results/personal.md.
.PHONY: bench-personal
bench-personal: .venv/development
	$(BIN)/python benchmarks/personal.py --footage $(FOOTAGE)

# From a pool of video to the evaluation of a model trained on it, at tiny size.
.PHONY: circle
circle: .venv/development
	$(BIN)/python -m pytest -q tests/test_circle.py

# A thousand damaged files and two hundred broken model folders at the door → docs/results/robustness.md.
.PHONY: fuzz
fuzz: .venv/development
	$(BIN)/python benchmarks/fuzz.py --files 1000 --models 200 --report docs/results/robustness.md

# kill -9 and full discs at random moments of generate, convert, precompute and train → docs/results/robustness.md.
.PHONY: kills
kills: .venv/development
	$(BIN)/python benchmarks/kills.py --kills 25 --full 10 --report docs/results/robustness.md

# What is installed, as files that are older than what they were installed from when they need it again.
.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/app: .venv/core
	$(INSTALL) --editable '.[app]'
	touch $@

.venv/development: .venv/core
	$(INSTALL) --editable '.[app,curate,heic,train,synthetic,dev]'
	$(INSTALL) --no-deps scenedetect resemblyzer rapidocr-onnxruntime
	touch $@
