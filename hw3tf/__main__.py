"""`python -m hw3tf`: what a bug report needs."""

import argparse

from hw3tf import ops


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hw3tf",
        description="Print versions, the instruction set and the threads in use, "
        "and which path attention takes: for a bug report.",
    )
    parser.add_argument(
        "--op-library",
        action="store_true",
        help="print only the path of the library with the TensorFlow ops",
    )
    if parser.parse_args(argv).op_library:
        print(ops.op_library_path())
        return
    info = ops.runtime_info()
    width = max(map(len, info)) + 2
    for name, value in info.items():
        print(f"{name + ':':{width}}{value}")


if __name__ == "__main__":
    main()
