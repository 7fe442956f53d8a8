# make demo | test | lint | format | bench | validate | fuzz | kills | clean.  Needs python3 (3.11 or newer) with venv; installs the rest into .venv, once.
PYTHON ?= python3
PY := .venv/bin/python
DEMO := demo

.PHONY: demo test lint format bench validate fuzz kills clean
.DELETE_ON_ERROR:

# A simulated campaign of raw camera files becomes FITS, an index, bias, dark and flat models and a bad-pixel map; a second
# one, of a sensor that changes, goes through both analyses. Each leaves a report.
demo: $(DEMO)/campaign/.complete $(DEMO)/epochs/.complete
	$(PY) -m utils.raw_to_fits $(DEMO)/campaign/Bias $(DEMO)/campaign/Darks $(DEMO)/campaign/Flats
	$(PY) bias_pipeline/run_pipeline.py --mode full --basepath $(DEMO)/campaign --output-dir $(DEMO)/bias_output --overwrite
	$(PY) dark_pipeline/run_pipeline.py --mode full --basepath $(DEMO)/campaign --output_dir $(DEMO)/dark_output --overwrite \
	    --bias-model $(DEMO)/bias_output/bias_model
	$(PY) flat_pipeline/run_pipeline.py --mode full --basepath $(DEMO)/campaign --output-dir $(DEMO)/flat_output --overwrite \
	    --bias-model $(DEMO)/bias_output/bias_model --dark-model $(DEMO)/dark_output/dark_model_2d
	$(PY) -m utils.bad_pixels $(DEMO)/bias_output $(DEMO)/dark_output $(DEMO)/flat_output --output $(DEMO)/bad_pixels.fits
	$(PY) -m utils.raw_to_fits $(DEMO)/epochs/Bias $(DEMO)/epochs/Darks $(DEMO)/epochs/Flats
	$(PY) structure_analysis.py $(DEMO)/epochs --reduce --output-dir $(DEMO)/structure_analysis --overwrite
	$(PY) dark_pipeline/steps/outgasing_destruction_analysis.py $(DEMO)/epochs --calibrate --output_dir $(DEMO)/outgasing_analysis \
	    --overwrite
	@echo "Reports: $(foreach name,bias_output dark_output flat_output structure_analysis outgasing_analysis,$(CURDIR)/$(DEMO)/$(name)/report.html)"

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
	$(PY) -m benchmarks.validate_flat
	$(PY) -m benchmarks.validate_camera
	$(PY) -m benchmarks.validate_structure
	$(PY) -m benchmarks.validate_degradation
	$(PY) -m benchmarks.validate_use

# Readers given anything at all, 10,000 cases each: minutes instead of the seconds that `make test` spends on them.
fuzz: .venv/dev.stamp
	FUZZ_CASES=10000 $(PY) -m pytest -n auto tests/test_fuzz.py

# Runs killed at 300 random moments and in each kind of write, then taken up with --resume: see docs/reliability.md.
kills: .venv/dev.stamp
	$(PY) -m benchmarks.kills

clean:
	rm -rf $(DEMO) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# Simulated anew only when the simulator changes.
$(DEMO)/campaign/.complete $(DEMO)/epochs/.complete: utils/simulate_campaign.py utils/domain/named_plans.py \
    utils/domain/campaign_plan.py utils/kernels/sensor.py utils/kernels/sensor_maps.py utils/kernels/sensor_spec.py | .venv/user.stamp
	rm -rf $(@D)
	$(PY) -m utils.simulate_campaign $(@D) $(if $(findstring epochs,$(@D)),--plan epochs)
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
