# make demo | test | lint | format | bench | validate | clean.  Needs python3 (3.11 or newer) with venv; installs the rest into .venv, once.
PYTHON ?= python3
PY := .venv/bin/python
DEMO := demo

.PHONY: demo test lint format bench validate clean
.DELETE_ON_ERROR:

# A simulated campaign of raw camera files becomes FITS, an index, bias, dark and flat models, each with a report.
demo: $(DEMO)/campaign/.complete
	$(PY) -m utils.raw_to_fits $(DEMO)/campaign/Bias $(DEMO)/campaign/Darks $(DEMO)/campaign/Flats
	$(PY) bias_pipeline/run_pipeline.py --mode full --basepath $(DEMO)/campaign --output-dir $(DEMO)/bias_output --overwrite
	$(PY) dark_pipeline/run_pipeline.py --mode full --basepath $(DEMO)/campaign --output_dir $(DEMO)/dark_output --overwrite \
	    --bias-model $(DEMO)/bias_output/bias_model
	$(PY) flat_pipeline/run_pipeline.py --mode full --basepath $(DEMO)/campaign --output-dir $(DEMO)/flat_output --overwrite \
	    --bias-model $(DEMO)/bias_output/bias_model --dark-model $(DEMO)/dark_output/dark_model_2d
	@echo "Reports: $(CURDIR)/$(DEMO)/{bias,dark,flat}_output/report.html"

test: .venv/dev.stamp
	$(PY) -m pytest -n auto

lint: .venv/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: .venv/dev.stamp
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Speed and memory against other software: BENCH="combine engine" chooses sections, BENCH=--quick takes a look only.
bench: .venv/dev.stamp
	$(PY) -m benchmarks.run $(BENCH)

# Accuracy and quoted errors on simulated cameras: the figures and tables of docs/validation.md.
validate: .venv/dev.stamp
	$(PY) -m benchmarks.validate_bias
	$(PY) -m benchmarks.validate_dark
	$(PY) -m benchmarks.validate_structure

clean:
	rm -rf $(DEMO) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# Simulated anew only when the simulator changes.
$(DEMO)/campaign/.complete: utils/simulate_campaign.py utils/domain/named_plans.py utils/domain/campaign_plan.py \
    utils/kernels/sensor.py utils/kernels/sensor_maps.py utils/kernels/sensor_spec.py | .venv/user.stamp
	rm -rf $(DEMO)/campaign
	$(PY) -m utils.simulate_campaign $(DEMO)/campaign
	touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) must be Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/user.stamp: requirements.txt | .venv/bin/python
	$(PY) -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt requirements.txt | .venv/bin/python
	$(PY) -m pip install --quiet -r requirements-dev.txt
	touch $@ .venv/user.stamp
