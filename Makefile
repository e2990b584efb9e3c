# What there is to do here. `make help` lists it; every target sets up first what it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
ROLE ?= radiologist
SECONDS ?= 60
BIN := .venv/bin
GENERATED := generated/.made
INSTALLED := .venv/.installed
PROTOS := $(shell find protos/ris -name '*.proto')

export PYTHONPATH := $(CURDIR):$(CURDIR)/generated
# Chatter of set-up goes to stderr: the output of `make -s token` is the token.
CHATTER := 1>&2

.PHONY: help setup proto demo up token user test test-unit test-integration test-e2e check conformance fuzz bench fmt migrate lock orthanc

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-17s %s\n", $$1, $$2}'

setup: $(INSTALLED) $(GENERATED) orthanc ## make .venv, the generated code, and install Orthanc where that is allowed

demo: setup ## run a stack to throw away and show the main job on real DICOM files
	@$(BIN)/python -m deploy.local demo

up: setup ## run the stack in the foreground, its state in .run/, until Ctrl-C
	@exec $(BIN)/python -m deploy.local up

token: $(INSTALLED) ## print a token for `make up`; ROLE=radiologist
	@$(BIN)/python -m deploy.local token --role "$(ROLE)"

user: $(INSTALLED) $(GENERATED) ## add that token's user to the database at DATABASE_URL; ROLE=radiologist
	@$(BIN)/python -m deploy.local user --role "$(ROLE)"

test: setup ## run all tests
	$(BIN)/python -m pytest

test-unit: $(INSTALLED) $(GENERATED) ## run the tests that need no other process
	$(BIN)/python -m pytest tests/unit

test-integration: setup ## run the tests against a real Orthanc and PostgreSQL
	$(BIN)/python -m pytest tests/integration

test-e2e: setup ## run the tests of the whole stack
	$(BIN)/python -m pytest tests/e2e

check: $(INSTALLED) $(GENERATED) ## lint, format, types, protos, import rules; changes no file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint
	BUF=$(BIN)/buf sh deploy/local/breaking.sh
	$(BIN)/lint-imports

bench: setup ## measure speed and memory, each against something else in the same run; CASE="early fair" ROUNDS=5
	@$(BIN)/python -m bench $(CASE) $(if $(ROUNDS),--rounds $(ROUNDS))

conformance: $(INSTALLED) ## hold the tag engine against other readers over the files in a folder; DIR=..., NAMES=1
	@: "$${DIR:?set DIR to a folder of DICOM files}"
	@$(BIN)/python -m conformance "$$DIR" $(if $(NAMES),--names)

fuzz: $(INSTALLED) ## feed the tag engine random and broken files; SECONDS=60
	@$(BIN)/python -m tests.unit.tag_service.fuzz --seconds $(SECONDS)

fmt: $(INSTALLED) ## format the code and mend what ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

migrate: $(INSTALLED) ## bring the database at DATABASE_URL to the newest revision
	@: "$${DATABASE_URL:?set DATABASE_URL to the database to migrate}"
	$(BIN)/python -m alembic -c migrations/alembic.ini upgrade head

proto: $(GENERATED) ## make the generated code and Envoy's descriptor set

# Reads pyproject.toml; pip-compile (pip-tools) is not among the tools that everybody needs.
LOCK = pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --annotation-style=line \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: ## pin the dependencies anew; needs pip-compile on PATH
	$(LOCK) -o requirements.lock pyproject.toml
	$(LOCK) --extra dev --extra cli -c requirements.lock -o requirements-dev.lock pyproject.toml

$(INSTALLED): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	@echo 'Making .venv ...' >&2
	@$(PYTHON) -m venv .venv $(CHATTER)
	@$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r $< $(CHATTER)
	@touch $@

# The google/{api,rpc} files come with googleapis-common-protos; buf and protoc read this copy of them.
GOOGLEAPIS := $(addprefix google/,api/annotations.proto api/http.proto api/httpbody.proto \
	rpc/status.proto rpc/error_details.proto rpc/code.proto)
PROTOC = $(BIN)/python -m grpc_tools.protoc -Iprotos -Iprotos/googleapis

$(GENERATED): $(INSTALLED) $(PROTOS)
	@rm -rf generated protos/googleapis && mkdir -p generated
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
		for file in $(GOOGLEAPIS); do install -D -m 644 "$$site/$$file" "protos/googleapis/$$file"; done
	@echo 'Making the generated code ...' >&2
	@$(PROTOC) --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=generated --grpc_python_out=generated --mypy_out=quiet:generated --mypy_grpc_out=quiet:generated \
		$(PROTOS) $(CHATTER)
	@$(PROTOC) --include_imports --descriptor_set_out=generated/envoy.binpb \
		$(PROTOS) google/rpc/error_details.proto $(CHATTER)
	@touch $@

orthanc:
	@sh deploy/local/install-orthanc.sh $(CHATTER)
