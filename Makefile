# Everything a developer types. GNU make and any POSIX sh; `make` alone prints the list.

VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready

# The first of these that runs (a name on PATH may be an empty shim), is new enough and has venv.
PYTHONS := python3.13 python3.12 python3.11 python3
PROBE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(PYTHONS); do "$$p" -c '$(PROBE)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

PIP := "$(BIN)/python" -m pip --quiet --disable-pip-version-check
UV_RANGE := uv>=0.13.8,<0.14

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run serve daily agent agents agent-daily batch test check coverage test-integration chaos bench docs route context venv journal lock clean test-ray
.PHONY: FORCE

# Reach recipes as shell variables and as they were typed, so that neither the shell nor make reads a character in them.
# All but CONTEXT and DAY count on the command line only: some systems have variables of these names.
typed = $(if $(filter command,$(firstword $(origin $1))),$(value $1))
override NAME := $(or $(call typed,NAME),default)
override PROMPT := $(call typed,PROMPT)
override CONTEXT := $(value CONTEXT)
override DAY := $(value DAY)
override INPUT := $(call typed,INPUT)
override TEMPLATE := $(call typed,TEMPLATE)
override OUTPUT := $(call typed,OUTPUT)
override PORT := $(call typed,PORT)
override QUESTION := What did I decide about the release on Tuesday?
export NAME PROMPT CONTEXT DAY INPUT TEMPLATE OUTPUT PORT QUESTION

help: ## print this list
	@sed -n 's/^\([a-z][a-z-]*[%]*\):.*## \(.*\)$$/\1|\2/p' $(MAKEFILE_LIST) | sed 's/%/NAME/' | \
	while IFS='|' read -r target text; do printf '  make %-17s %s\n' "$$target" "$$text"; done

run: $(READY) journal ## write the insight of a day (DAY=YYYYMMDD to choose), then ask an agent; needs no key
	@"$(BIN)/muse" insight $${DAY:+"$$DAY"}
	@test -n "$$JOURNAL_PATH" || { printf '\n%s\n\n' "Agent: $$QUESTION" && "$(BIN)/muse" agent default "$$QUESTION"; }

serve: $(READY) journal ## open the pages in a browser: chat, agents, tokens, settings, to-dos (PORT=5005)
	@"$(BIN)/muse" serve --open $${PORT:+--port "$$PORT"}

daily: $(READY) journal ## do a day's work: observe, think, agents (DAY=YYYYMMDD; what is done is skipped)
	@"$(BIN)/muse" daily $${DAY:+--day "$$DAY"}

agent: $(READY) journal ## ask an agent: make agent PROMPT="What is open?" (NAME=default, or another of make agents)
	@"$(BIN)/muse" agent $${DAY:+--day "$$DAY"} -- "$$NAME" $${PROMPT:+"$$PROMPT"}

agents: $(READY) journal ## list the agents with their contexts, routes, tools and schedules
	@"$(BIN)/muse" agents

agent-daily: $(READY) journal ## carry out the scheduled runs that are due
	@"$(BIN)/muse" daily --only agents $${DAY:+--day "$$DAY"}

# Runs only if what the agent reads has changed; `make -n` says what would run and why. An app's agent: agent-app.name.
DRY = $(findstring n,$(filter-out --%,$(firstword -$(MAKEFLAGS))))
agent-%: export PERSONA = $(subst .,:,$*)
agent-%: $(READY) journal FORCE ## run one if its inputs changed (make -n agent-NAME: what would run)
	+@test ! -x "$(BIN)/muse" || "$(BIN)/muse" agent --if-changed $(if $(DRY),--dry-run) \
	    $${DAY:+--day "$$DAY"} -- "$$PERSONA" $${PROMPT:+"$$PROMPT"}

batch: $(READY) journal ## ask for every row of a file: make batch INPUT=rows.jsonl (CONTEXT=, TEMPLATE=, OUTPUT=)
	@test -n "$$INPUT" || { \
	    echo "INPUT: not given. Say which rows, for example: make batch INPUT=rows.jsonl OUTPUT=answers.jsonl"; exit 2; } >&2
	@"$(BIN)/muse" batch run --context "$${CONTEXT:-batch.rows}" $${TEMPLATE:+--template "$$TEMPLATE"} \
	    $${OUTPUT:+--output "$$OUTPUT" --resume} -- "$$INPUT"

# Files of tests go to four processes: much of their time is waiting for other processes.
PYTEST = "$(BIN)/pytest" --numprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY) ## run the tests
	@$(PYTEST)

check: $(READY) ## format, lint, types, layers, docs, then tests
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports" --no-logo
	"$(BIN)/muse" docs --check
	$(PYTEST)

coverage: $(READY) ## run the tests with branch coverage; takes half as long again as make test
	$(PYTEST) --cov

test-integration: $(READY) ## run the tests that call real providers; each is skipped without its key
	@"$(BIN)/pytest" -m "" --force-enable-socket tests/integration

test-ray: $(READY) ## install Ray (0.4 GB, once) and run the tests of batches on two of its nodes
	@"$(BIN)/python" -c "import ray.data" 2>/dev/null || \
	    $(PIP) install --no-deps --require-hashes -r constraints-ray.txt
	@"$(BIN)/pytest" tests/test_batch_ray.py tests/test_batch_workers.py

chaos: $(READY) ## test against simulated faults: failing providers, limits, a wrong clock, killed callers
	@"$(BIN)/python" -m tests.chaos

bench: $(READY) ## print muse's speed as ratios to the raw SDKs and to the floor
	@"$(BIN)/python" -m benchmarks

docs: $(READY) ## write the tables in docs/ anew from the code
	@"$(BIN)/muse" docs

route: context $(READY) ## print who answers a context: make route CONTEXT=observe.describe.frame
	@"$(BIN)/muse" route "$$CONTEXT"

context:
	@test -n "$$CONTEXT" || { \
	    echo "CONTEXT: not given. Say which, for example: make route CONTEXT=observe.describe.frame"; \
	    echo "Every known context with its route: $(BIN)/muse routes"; exit 2; } >&2

venv: $(READY) ## make the virtual environment (done by itself when needed)

# Nothing is made twice: the stamp is newer than both files as long as neither changes.
$(READY): pyproject.toml constraints.txt
	@python='$(PYTHON)'; test -n "$$python" && "$$python" -c '$(PROBE)' 2>/dev/null || { \
	    echo "muse needs Python 3.11 or newer with its venv module; found none as $${python:-$(PYTHONS)}."; \
	    echo "  Debian, Ubuntu: sudo apt install python3-venv"; \
	    echo "  Fedora: sudo dnf install python3    macOS: brew install python@3.13"; \
	    echo "  Installed elsewhere: make PYTHON=/path/to/python3"; exit 1; } >&2
	@test ! -e "$(VENV)" || test -f "$(VENV)/pyvenv.cfg" || { \
	    echo "$(VENV) exists and is not a virtual environment; choose another: make VENV=folder" >&2; exit 1; }
	@echo "Making $(VENV) from constraints.txt (once; about a minute) ..."
	@"$(BIN)/python" -c "" 2>/dev/null || $(PYTHON) -m venv --clear "$(VENV)"
	@$(PIP) install --no-deps --require-hashes -r constraints.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch "$@"

# The example days go into the git-ignored journal once; JOURNAL_PATH names a journal of one's own.
journal:
	@test -n "$$JOURNAL_PATH" || ls -d journal/2* >/dev/null 2>&1 || { \
	    echo "Copying the example days of fixtures/journal to journal/ ..." && \
	    mkdir -p -m 700 journal && cp -R fixtures/journal/2* journal/; }

# Ray and what it needs are locked beside the rest: an environment without it is a third of the size.
LOCK = build/lock/bin/uv --quiet pip compile pyproject.toml --universal --python-version 3.11 --extra all --extra dev \
    --group weights --group scripts --only-binary :all: --generate-hashes --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

lock: ## write constraints.txt again from pyproject.toml (UPGRADE=1 takes the newest versions)
	@test -x build/lock/bin/uv || { $(PYTHON) -m venv build/lock && \
	    build/lock/bin/python -m pip --quiet --disable-pip-version-check install '$(UV_RANGE)'; }
	@$(LOCK) --output-file constraints.txt
	@$(LOCK) --output-file constraints-ray.txt --extra ray --constraint constraints.txt \
	    $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' constraints.txt)
	@echo "constraints.txt: $$(grep -c '^[a-z]' constraints.txt) packages"

clean: ## remove what make made; the journal stays
	@test ! -f "$(VENV)/pyvenv.cfg" || rm -rf "$(VENV)"
	@rm -rf apps/host/static/vendor build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
