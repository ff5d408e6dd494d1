# `make test` checks everything that CI checks. All of it shares one target folder and one profile.

CARGO ?= cargo

PYTHON ?= python3
NODE ?= node
TARGET = $(abspath $(or $(CARGO_TARGET_DIR),target))
VENV = $(TARGET)/python
RAY = $(TARGET)/ray
CLIENTS = $(TARGET)/clients

.PHONY: test check unit docs lean demo serve goldens check-gpu gpu-check test-python test-ray wheel test-node \
	test-page test-clients

test: check lean docs unit check-gpu test-python test-node test-page test-clients
	@echo "all checks passed"

# Formatting and lints.
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

# The library without its optional features still compiles, and drops their dependencies.
lean:
	$(CARGO) clippy --release -p tagbrush --no-default-features -- -D warnings
	@for crate in clap indicatif ureq rustls ctrlc; do \
		if $(CARGO) tree -p tagbrush -e normal --no-default-features --prefix none | grep -q "^$$crate v"; then \
			echo "$$crate is a dependency without its feature"; exit 1; \
		fi; \
	done

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --document-private-items

# Then the networks and pipelines on plain tensor operations, which is what a device without kernels does. `check-gpu` has them on
# CUDA's kernels; `TAGBRUSH_KERNELS=emulated cargo test --release --workspace --lib` runs those without the feature.
unit:
	$(CARGO) test --release --workspace
	TAGBRUSH_KERNELS=plain $(CARGO) test --release --workspace --lib -- models:: tagger:: edit:: generate:: diffusion::

# What is built for CUDA, without a device: its types, and tests on an emulated one. The types of what is built for Metal.
check-gpu:
	core/gpu/check.sh

# Compares and measures on a device of NVIDIA's: docs/gpu.md. Builds with nvcc of PyPI's packages.
gpu-check:
	core/gpu/with-nvcc.sh cargo build --release -p tagbrush --features cuda,gpu-check --bin gpu-check
	@program=$$(realpath $(or $(CARGO_TARGET_DIR),$(or $(TAGBRUSH_CUDA_HOME),target/cuda)/target)/release/gpu-check); \
	if ls /dev/nvidia[0-9]* > /dev/null 2>&1; then $$program --output benches/results/gpu.json; \
	else gzip -kf $$program; echo "no device here; on a machine with one: $$program --output gpu.json, packed: $$program.gz"; fi

# The Python package, tested as people get it: the wheel, installed. It is built with the profile and in the target folder of
# everything else. What the tools of the tests and the server switch on in shared dependencies is not part of a wheel, so the core
# is compiled a second time for it.
test-python: wheel
	cd bindings-python && $(VENV)/bin/python -m pytest
	cd bindings-python && $(VENV)/bin/python -m mypy.stubtest tagbrush._core
	cd bindings-python && PATH="$(VENV)/bin:$$PATH" pyright
	cd bindings-python && PATH="$(VENV)/bin:$$PATH" pyright --verifytypes tagbrush --ignoreexternal

# Ray Data itself, with the same wheel in an environment of its own: Ray is large. Not part of `make test`.
test-ray: wheel $(RAY)/installed
	$(RAY)/bin/pip install --quiet --force-reinstall --no-deps $(VENV)/wheels/*.whl
	cd bindings-python && $(RAY)/bin/python -m pytest -W default -s tests-ray

$(RAY)/installed: bindings-python/tests-ray/requirements.txt
	$(PYTHON) -m venv --clear $(RAY)
	$(RAY)/bin/pip install --quiet -r $<
	touch $@

# The wheel, in the environment for its tests.
wheel: $(VENV)/installed
	rm -rf $(VENV)/wheels
	cd bindings-python && CARGO_TARGET_DIR=$(TARGET) $(VENV)/bin/maturin build --release --locked --out $(VENV)/wheels \
		--interpreter $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --force-reinstall --no-deps $(VENV)/wheels/*.whl

$(VENV)/installed: bindings-python/tests/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the Python package needs Python 3.11 or later")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet -r bindings-python/tests/requirements.txt
	touch $@

# The Node package, tested as people get it: packed, and installed into an empty folder. Its compiled half is built together with
# the tests: so it shares what they compiled, and only it is linked here.
test-node:
	@command -v npm > /dev/null && $(NODE) -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || \
		{ echo "the Node package needs Node 20 or later with npm"; exit 1; }
	$(CARGO) build --release --workspace --all-targets
	cd bindings-node && $(NODE) scripts/build.mjs --library $(TARGET)/release
	cd bindings-node && $(NODE) scripts/test.mjs $(TARGET)/node

# The example server's page in a real browser, which npm brings along for Linux on x86-64; CHROME names another one. With
# SCREENSHOTS=folder, pictures of the page are written there.
test-page:
	@command -v npm > /dev/null && $(NODE) -e 'const [a, b] = process.versions.node.split("."); process.exit(a * 100 + +b < 2011 ? 1 : 0)' || \
		{ echo "the tests of the page need Node 20.11 or later with npm"; exit 1; }
	$(CARGO) build --release --workspace --all-targets
	cd server-example/tests/page && npm ci --silent --ignore-scripts --no-audit --no-fund
	cd server-example/tests/page && $(if $(SCREENSHOTS),SCREENSHOTS=$(abspath $(SCREENSHOTS))) \
		SERVER=$(TARGET)/release/server-example $(NODE) --test page.test.mjs

# The examples of FooocusAPI's document, as programs, against the example server.
test-clients: $(CLIENTS)/installed
	$(CARGO) build --release --workspace --all-targets
	SERVER=$(TARGET)/release/server-example $(CLIENTS)/bin/python server-example/tests/clients/run.py

$(CLIENTS)/installed: server-example/tests/clients/requirements.txt
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet -r $<
	touch $@

# The example server on http://127.0.0.1:8000.
serve:
	$(CARGO) run --release -p server-example

# The first command of the README.
demo:
	$(CARGO) run --release -- tag core/demo/images

# Makes the golden files anew from the reference libraries; needs core/tests/goldens/requirements.txt.
goldens:
	cd core/tests/goldens && for make in make_presets make_timm make_pixels make_preprocess make_onnx make_edit make_edit_networks \
		make_edit_text_encoder make_edit_formats make_edit_pipeline make_generate_text make_generate_networks \
		make_generate_unet make_generate_single_file make_generate_samplers make_generate_prompts make_generate_pipeline \
		make_generate_sharpness make_generate_lora \
		make_generate_freeu make_generate_refiner make_generate_upscale make_generate_inpaint; do python3 $$make.py || exit 1; done
