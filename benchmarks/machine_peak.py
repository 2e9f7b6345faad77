"""The peak rates of this machine: compiles and runs peak.cc.

    python benchmarks/machine_peak.py --threads 2

GFLOP/s of multiply-adds from registers in float32 and bfloat16, GB/s of reading. For
float64 half of float32's: a register has half as many of these numbers.
For bfloat16 the larger of the dot product's rate and float32's: processors exist
whose dot product is the slower, and a kernel may convert.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

SOURCE = pathlib.Path(__file__).with_name("peak.cc")
UNKNOWN = {"float32": None, "float64": None, "bfloat16": None, "bandwidth": None}


class MachinePeak:
    """The compiled program, in a temporary folder, and the best it has seen.

    Args:
        milliseconds: How long each of the five rounds of a loop takes.
        mebibytes: What the bandwidth is measured on.
        isa: "avx2": nothing wider is used, where the processor has it; or None.
    """

    def __init__(self, milliseconds=20, mebibytes=256, isa=None):
        self.options = [str(milliseconds), str(mebibytes), *([isa] if isa else [])]
        self.best = {}  # threads -> figures
        self.folder = tempfile.TemporaryDirectory(prefix="hw3tf-peak-")
        self.program = pathlib.Path(self.folder.name, "peak")
        self.why_unknown = self._compile()

    def _compile(self):
        compilers = filter(shutil.which, ("g++", "clang++", "c++"))
        compiler = next(compilers, None)
        if compiler is None:
            return "no C++ compiler"
        command = [compiler, "-std=c++17", "-O2", "-pthread", SOURCE, "-o"]
        done = subprocess.run([*command, self.program], capture_output=True, text=True)
        lines = done.stderr.splitlines() or [""]
        return f"{compiler} failed: {lines[0]}" if done.returncode else ""

    def measure(self, threads):
        """Measures once more: a dict like `UNKNOWN`, with `instruction_set` and
        `bfloat16_dot`, the rate of the dot product alone."""
        if self.why_unknown:
            return dict(UNKNOWN)
        command = [self.program, str(threads), *self.options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        now = json.loads(done.stdout)
        now["bfloat16_dot"] = now["bfloat16"]
        now["float64"] = (now["float32"] or 0) / 2 or None  # half as many lanes
        now["bfloat16"] = max(now["bfloat16"] or 0, now["float32"] or 0) or None
        before = self.best.setdefault(threads, dict(UNKNOWN))
        for name in UNKNOWN:
            rates = [x for x in (before[name], now[name]) if x is not None]
            before[name] = max(rates, default=None)
        return now


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--isa", choices=["avx2"], help="use nothing wider")
    args = parser.parse_args()
    if min(args.threads, default=1) < 1:
        parser.error(f"--threads must be at least 1, not {min(args.threads)}")
    peak = MachinePeak(isa=args.isa)
    if peak.why_unknown:
        raise SystemExit(f"unknown: {peak.why_unknown}")
    for threads in args.threads:
        print(f"{threads} threads:", json.dumps(peak.measure(threads)))


if __name__ == "__main__":
    main()
