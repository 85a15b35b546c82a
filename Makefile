# Everything a person or a machine runs. Needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check fix docs campaign clean

help:  ## Show what there is.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make .venv from requirements.lock (pinned, with hashes).

$(READY): requirements.lock pyproject.toml
	@echo "==> making $(VENV) from requirements.lock; the first time takes some minutes and 2 to 3 GB"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@log=$(VENV)/setup.log; : > $$log; \
	    (while sleep 5; do if grep -q '^Installing collected' $$log; then echo "    all are fetched; installing them"; else echo "    $$(grep -c ^Collecting $$log) of at most $$(grep -c '==' requirements.lock) packages fetched"; fi; done) & told=$$!; \
	    $(BIN)/pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements.lock > $$log 2>&1; code=$$?; \
	    kill $$told; [ $$code -eq 0 ] || tail -n 20 $$log >&2; exit $$code
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)  ## Four experiments; the worker is killed in the middle, all of them finish.
	@$(BIN)/temporal-fabric demo

test: $(READY)  ## Every test, on real servers and processes.
	@sh tests/backends/setup.sh
	@$(BIN)/python -m tests.leftovers $(BIN)/python -m tests.lanes

check: $(READY)  ## Lint, types, layers, package contents.
	@echo "==> ruff"        && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "==> mypy"        && $(BIN)/mypy
	@echo "==> pyright"     && $(BIN)/pyright
	@echo "==> import-linter" && $(BIN)/lint-imports
	@echo "==> wheel"       && rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist . > /dev/null && $(BIN)/check-wheel-contents dist && rm -rf *.egg-info
	@echo "==> docs"        && $(BIN)/mkdocs build --strict --quiet

fix: $(READY)  ## Let ruff mend what it can.
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(READY)  ## Build the site into site/ and say where it is.
	@$(BIN)/mkdocs build --strict --quiet && echo "==> open site/index.html"

campaign: $(READY)  ## The long counts: resumable, report in docs/evidence.
	@$(BIN)/python -m tests.campaign

clean:  ## Remove what the other targets made.
	@rm -rf $(VENV) build dist site *.egg-info src/*.egg-info
