UV       := $(shell command -v uv)
PYTHON   ?= python3
BIN      := .venv/bin
SERVICES := vad asr diarizer translator gateway cli
COMPILE   = uv pip compile -q --universal --generate-hashes pyproject.toml
REQS     := deploy/requirements
SDKS     := tests/protocols/envs
TORCH    ?= torch==2.13.0

.PHONY: help install torch sdks lock audit proto check test chaos demo serve bench
help:     ## List the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*## / — /'
install: .venv/installed  ## Create .venv with every service and the tools
.venv/installed: $(REQS)/dev.txt pyproject.toml
ifneq ($(UV),)
	uv venv -q --allow-existing --python '>=3.11' .venv
	uv pip sync -q --python $(BIN)/python --require-hashes $(REQS)/dev.txt
	uv pip install -q --python $(BIN)/python --no-deps -e .
else
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make install PYTHON=python3.12, or install uv'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --require-hashes -r $(REQS)/dev.txt
	$(BIN)/python -m pip install -q --no-deps -e .
endif
	touch $@
torch: .venv/torch  ## Add torch and what needs it: the build that pip finds, or TORCH=...
.venv/torch: .venv/installed Makefile
	$(BIN)/python -m pip install -q '$(TORCH)' nllw==0.1.6
	touch $@
lock:     ## Pin every dependency with its hashes (needs uv)
	mkdir -p $(REQS)
	for s in $(SERVICES); do $(COMPILE) --extra $$s --extra tracing -o $(REQS)/$$s.txt || exit 1; done
	$(COMPILE) $(addprefix --extra ,$(SERVICES)) --extra tracing --group dev -o $(REQS)/dev.txt
	for s in $(basename $(wildcard $(SDKS)/*.in)); do uv pip compile -q --universal --python-version 3.11 --generate-hashes $$(test -e $$s.overrides && echo --overrides $$s.overrides) $$s.in -o $$s.txt || exit 1; done
sdks: $(patsubst $(SDKS)/%.txt,.venv-sdks/%/installed,$(wildcard $(SDKS)/*.txt)) $(patsubst $(SDKS)/%/package.json,.venv-sdks/%/installed,$(wildcard $(SDKS)/*/package.json))  ## Create the environments of the SDKs that tests use
ifneq ($(shell command -v npm),)
sdks: clients/node/node_modules/installed
endif
clients/node/node_modules/installed: clients/node/package.json
	npm install --prefix clients/node --no-package-lock --no-audit --no-fund --silent
	touch $@
.venv-sdks/%/installed: $(SDKS)/%.txt
ifneq ($(UV),)
	uv venv -q --allow-existing --python '>=3.11' $(@D)
	uv pip sync -q --python $(@D)/bin/python --require-hashes $<
else
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q --no-deps --require-hashes -r $<
endif
	touch $@
.venv-sdks/%/installed: $(SDKS)/%/package.json
	mkdir -p $(@D)
	cp $< $(@D)
	if command -v npm >/dev/null; then npm install --prefix $(@D) --no-package-lock --no-audit --no-fund --loglevel=error && touch $@; fi
audit:    ## Ask for known vulnerabilities of everything that is pinned (needs uv and the network)
	for s in $(SERVICES) dev; do uvx pip-audit --strict --disable-pip --require-hashes -r $(REQS)/$$s.txt || exit 1; done
proto: install  ## Regenerate proto/gen
	$(BIN)/python proto/generate.py
check: install  ## Lint, types, contracts, layout
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/buf lint && $(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_layout.py
	$(BIN)/python -m pip check
	if git rev-parse -q --verify origin/main >/dev/null; then $(BIN)/buf breaking --against '.git#ref=origin/main'; fi
test: torch sdks  ## Fetch the small models and run every test
	$(BIN)/voxmesh pull silero-vad tiny.en base diarizer-online speech
	$(BIN)/pytest -q
chaos: install  ## Hit several replicas of everything for MINUTES=10, under a checker
	$(BIN)/voxmesh pull silero-vad speech
	$(BIN)/python -m tests.robustness.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))
demo: install  ## Stream a real recording through the whole mesh and watch the captions
	$(BIN)/voxmesh demo
serve: install  ## Serve the whole mesh on this machine
	$(BIN)/voxmesh serve
bench: install  ## Measure accuracy and latency on this machine
	$(BIN)/voxmesh pull silero-vad base speech
	$(BIN)/python -m bench.accuracy --name two_cities
	$(BIN)/python -m bench.latency --name two_cities
