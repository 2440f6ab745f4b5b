"""`python -m wdct_dist` is the same program as `wdct`."""

from wdct_dist.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
