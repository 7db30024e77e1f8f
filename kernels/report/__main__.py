"""`python -m kernels.report`: the report alone, without the other commands."""

from __future__ import annotations

import argparse
import sys

from ..fit.samples import SamplesError
from .command import options, run_report


def main() -> int:
    """0 written, 2 the arguments or a file are at fault."""
    parser = argparse.ArgumentParser("python -m kernels.report", description=__doc__)
    options(parser)
    try:
        return run_report(parser.parse_args())
    except SamplesError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
