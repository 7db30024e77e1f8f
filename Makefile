# `make demo` runs the main job on the built-in workload, `make test` the tests; each in an
# environment of its own that it sets up, with Python 3.11 or later and the package registries.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test

.PHONY: demo test pytest lint bench clean

demo: $(DEMO)/ready
	$(DEMO)/bin/residentsim sweep scenarios/chat-three-loops.yaml --out runs/demo --jobs 2
	$(DEMO)/bin/residentsim report runs/demo
	@echo "open runs/demo/report.html in a browser, or look at runs/demo/figures/overview.png"

# Types are checked beside the tests, on what they leave of two cores.
test: $(TEST)/ready
	$(MAKE) --jobs 2 lint pytest

pytest: $(TEST)/ready
	$(TEST)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(TEST)/ready
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

bench: $(TEST)/ready
	$(TEST)/bin/python bench/speed.py

$(DEMO)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(TEST)/ready: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) runs build dist
