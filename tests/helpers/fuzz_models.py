"""Random models under every method by which Keras runs them, for some time.

    python tests/helpers/fuzz_models.py --seconds 600

draws as acceleration/test_models_property.py does, from a seed. A failing case is
printed in its smallest form.
"""

import argparse
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from hypothesis import HealthCheck, given, seed, settings
from model_cases import cases, check

CASES_PER_SEED = 20


def run(first, most, end):
    """(cases, failed): of the failing ones, one per seed."""
    made, failed = 0, 0

    @settings(
        max_examples=CASES_PER_SEED,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases())
    def example(case):
        nonlocal made
        made += 1
        check(case)

    number = first
    while made < most and time.monotonic() < end and failed < 10:
        try:
            seed(number)(example)()
        except Exception as error:
            failed += 1
            notes = "\n".join(getattr(error, "__notes__", []))
            text = f"--seed {number}: {type(error).__name__}: {error}\n{notes}"
            print(text, flush=True)
        number += 1
    return made, failed


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=10**12, help="at most, about")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    made, failed = run(args.seed, args.cases, time.monotonic() + args.seconds)
    print(f"models: {made} cases, {failed} failed, from seed {args.seed} on")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
