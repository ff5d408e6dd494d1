# `make test` checks everything that CI checks. All of it shares one target folder and one profile.

CARGO ?= cargo

.PHONY: test check unit docs lean demo goldens

test: check lean docs unit
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

unit:
	$(CARGO) test --release --workspace

# The first command of the README.
demo:
	$(CARGO) run --release -- tag core/demo/images

# Makes the golden files anew from the reference libraries; needs core/tests/goldens/requirements.txt.
goldens:
	cd core/tests/goldens && for make in make_presets make_timm make_pixels make_preprocess make_onnx make_edit make_edit_networks \
		make_edit_text_encoder make_edit_formats make_edit_pipeline; do python3 $$make.py || exit 1; done
