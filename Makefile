# Every target sets up .venv by itself; a second call finds it ready.
# PYTHON picks the interpreter, any parameter of the study goes into ARGS: make study ARGS="-p epochs 3 -p seeds 1"
PYTHON  ?= python3
MODEL   ?= convnext
DATASET ?= digits
ARGS    ?=
STUDY   ?= all
SCALE   ?= small
JOBS    ?= 1
BIN     := .venv/bin
READY   := .venv/.ready
export MODEL DATASET STUDY SCALE JOBS
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# cells and tests that need real data run only where there is some
FLAGS   := $(if $(IMGSTUDY_DATA),data)

.PHONY: study sweep smoke status bench gpu report tables test check lab help

help:
	@echo "make study   train and test MODEL=$(MODEL) on DATASET=$(DATASET); parameters in ARGS=\"-p NAME VALUE\""
	@echo "make sweep   every training of STUDY=$(STUDY) at SCALE=$(SCALE), JOBS=$(JOBS) at once; what is finished is skipped; more in ARGS"
	@echo "make status  what of STUDY=$(STUDY) is done, blocked or left"
	@echo "make smoke   every study in minutes, on digits: does each row train?"
	@echo "make bench   speed beside what you would write instead, and as the work grows; half an hour, with nothing else running"
	@echo "make gpu     what the NVIDIA GPU of this machine is worth, in 4 minutes; needs neither pip nor .venv"
	@echo "make report  report/index.html and model cards, from the records in report/records"
	@echo "make tables  imgstudy/tables, after a model, a data set or a study has changed"
	@echo "make test    exported code in step, notebooks clean, nbdev_test, pytest"
	@echo "make lab     JupyterLab, opened on nbs/index.ipynb"

$(READY): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "imgstudy needs Python 3.10 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv || { echo "No virtual environment could be made; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[dev]'
# else each kernel warns that it talks to the process that started it, on this machine, without encryption
	@mkdir -p .venv/etc/ipython && echo "c.IPKernelApp.log_level = 'ERROR'" > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

# the values reach the shell through its environment, so that a path may hold spaces and quotes
study: $(READY)
	@mkdir -p runs; out="runs/$$(printf %s "$$DATASET" | tr -c 'A-Za-z0-9_.-' _)-$$MODEL.ipynb"; \
	papermill nbs/run_study.ipynb "$$out" -p model "$$MODEL" -p dataset "$$DATASET" $(ARGS) --log-output && \
	echo "The executed notebook is $$out; the records that it names are in $${IMGSTUDY_RUNS:-runs}/."

sweep: $(READY)
	imgstudy run "$$STUDY" --scale "$$SCALE" --jobs "$$JOBS" $(ARGS)

smoke: $(READY)
	imgstudy run all --scale smoke --jobs "$$JOBS" --no-notebook --root runs/smoke $(ARGS)

status: $(READY)
	imgstudy status "$$STUDY" --scale "$$SCALE" $(ARGS)

bench: $(READY)
	$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[bench]'
	@mkdir -p runs; for n in benchmark benchmark_growth; do \
	papermill nbs/$$n.ipynb runs/$$n.ipynb --cwd nbs -p out ../report/records/benchmarks $(ARGS) --log-output || exit 1; done

# with .venv if there is one, else with what $(PYTHON) has
gpu:
	@PYTHONPATH=.$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -c 'from imgstudy.cli import main; main()' gpu $(ARGS)

report: $(READY)
	imgstudy report $(ARGS)

# what imgstudy models, datasets and studies list without computing it
tables: $(READY)
	$(BIN)/python -c 'from imgstudy.light_tables import write_tables; write_tables()'

test: check
# records and temporary files in a folder of their own, which goes afterwards; one thread per process
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && mkdir "$$folder/runs" && export TMPDIR="$$folder" && \
	IMGSTUDY_RUNS="$$folder/runs" OMP_NUM_THREADS=1 nbdev_test --timing --flags '$(FLAGS)'
	OMP_NUM_THREADS=1 pytest tests -n 2 --dist loadfile

check: $(READY)
	pytest tests/test_export_in_sync.py

lab: $(READY)
	cd nbs && jupyter lab index.ipynb
