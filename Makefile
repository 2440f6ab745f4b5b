.PHONY: install run test lint

install:
	@cluster/install.sh

run: install
	.venv/bin/wdct evaluate configs/quickstart.yaml

test:
	@cluster/install.sh test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder
