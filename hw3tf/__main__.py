"""`python -m hw3tf`: what a bug report needs."""

import argparse

from hw3tf import ops


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m hw3tf",
        description="Print versions, the instruction set and the threads in use, "
        "and which path attention takes: for a bug report.",
    )
    parser.parse_args(argv)
    info = ops.runtime_info()
    width = max(map(len, info)) + 2
    for name, value in info.items():
        print(f"{name + ':':{width}}{value}")


if __name__ == "__main__":
    main()
