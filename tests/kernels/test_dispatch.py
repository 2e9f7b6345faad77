"""The choice of the instruction set: the processor must have all that objects use."""

import pathlib
import re

import pytest

KERNELS = pathlib.Path(__file__).parents[2] / "csrc" / "kernels"
# A flag that asks for no instruction.
NO_FEATURE = {"prefer-vector-width=512"}


def flags_of_tables():
    """The -m flags with which CMake compiles the object of every table of kernels."""
    text = (KERNELS / "CMakeLists.txt").read_text()
    lists = dict(re.findall(r"set\((avx\w+)\s+([^)]*)\)", text))

    def expanded(words):
        return re.sub(r"\$\{(\w+)\}", lambda m: expanded(lists[m[1]]), words)

    objects = re.findall(r"hw3tf_add_kernels\(\w+ \w+ (k\w+)([^)]*)\)", text)
    return {
        table: set(re.findall(r"-m([\w=-]+)", expanded(words))) - NO_FEATURE
        for table, words in objects
    }


def features_of_tables():
    """The features that dispatch.cc requires before it takes a table."""
    text = (
        (KERNELS / "runtime/dispatch.cc")
        .read_text()
        .replace("SupportsF16c()", '("f16c")')
    )
    features = {"true": set()}
    for name, condition in re.findall(r"const bool (\w+) =([^;]*);", text):
        features[name] = set(re.findall(r'\("(\w+)"\)', condition))
        for other in re.findall(r"\b\w+\b", condition):
            features[name] |= features.get(other, set())
    tables = {}
    for name, arguments in re.findall(r'add\("\w+", (\w+),([^;]*);', text):
        for table in re.findall(r"\bk\w+", arguments):
            tables.setdefault(table, []).append(features[name])
    return tables


FLAGS, FEATURES = flags_of_tables(), features_of_tables()


def test_every_table_is_compiled_and_chosen():
    assert FLAGS.keys() == FEATURES.keys()
    assert len(FLAGS) == 12
    assert "f16c" in FLAGS["kAttentionAvx2"]


@pytest.mark.parametrize("table", FLAGS)
def test_processor_is_asked_for_every_flag(table):
    for features in FEATURES[table]:
        assert FLAGS[table] <= features
