// The plain form, which judges the others, against what attention.h says: the
// formula in long double, its central differences, and the published numbers of
// the generator of dropout.

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/attention/dropout.h"
#include "kernels/attention/plain.h"
#include "kernels/vector/element.h"
#include "tests/attention/case.h"
#include "tests/attention/compare.h"
#include "tests/attention/formula.h"
#include "tests/attention/inputs.h"
#include "tests/attention/results.h"
#include "tests/check.h"

namespace hw3tf {
namespace {

// What the formula makes of the inputs.
void CompareWithFormula(const Inputs& x, const Results& got) {
  const FormulaResults want = Formula(x, FormulaInputsOf(x));
  const std::vector<double> output = got.output.Values();
  for (size_t i = 0; i < output.size(); ++i)
    CHECK(std::fabs(static_cast<long double>(output[i]) - want.output[i]) <=
              1e-13L,
          "output %zu: %g, not %Lg: %s", i, output[i], want.output[i],
          x.Name().c_str());
  for (int64_t i = 0; i < got.logsumexp.count(); ++i) {
    const long double expected = want.logsumexp[static_cast<size_t>(i)];
    const auto found = static_cast<long double>(got.logsumexp.Get(i));
    CHECK(found == expected || std::fabs(found - expected) <= 1e-13L,
          "logsumexp %d: %Lg, not %Lg: %s", static_cast<int>(i), found,
          expected, x.Name().c_str());
  }
}

// Along a random direction, over fewer and fewer elements, the change of the
// formula is what the gradient says.
void CompareWithDifferences(const Inputs& x, const char* what,
                            std::vector<long double> FormulaInputs::* part,
                            const std::vector<double>& gradient) {
  constexpr long double kStep = 1e-5L;
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  for (unsigned thinning = 1; thinning <= 128; thinning *= 2) {
    FormulaInputs up = FormulaInputsOf(x), down = up;
    long double expected = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double direction = random() % thinning ? 0.0 : normal(random);
      (up.*part)[i] += kStep * static_cast<long double>(direction);
      (down.*part)[i] -= kStep * static_cast<long double>(direction);
      expected += static_cast<long double>(direction * gradient[i]);
    }
    const long double change =
        (Formula(x, up).loss - Formula(x, down).loss) / (2 * kStep);
    CHECK(std::fabs(change - expected) <= 1e-7L * (1 + std::fabs(expected)),
          "%s: a difference of %Lg, not %Lg: %s", what, change, expected,
          x.Name().c_str());
  }
}

void CompareGradients(const Inputs& x, const Results& got) {
  CompareWithDifferences(x, "grad_query", &FormulaInputs::query,
                         got.grad_query.Values());
  CompareWithDifferences(x, "grad_key", &FormulaInputs::key,
                         got.grad_key.Values());
  CompareWithDifferences(x, "grad_value", &FormulaInputs::value,
                         got.grad_value.Values());
  if (got.grad_bias.count() == 0) return;
  std::vector<double> grad_bias;
  for (int64_t i = 0; i < got.grad_bias.count(); ++i)
    grad_bias.push_back(got.grad_bias.Get(i));
  CompareWithDifferences(x, "grad_bias", &FormulaInputs::bias, grad_bias);
}

// In a narrow type: float64's result, rounded once.
void CompareNarrow(const Inputs& exact, const Results& want) {
  const Case& c = exact.c;
  const Inputs inputs(c, c.dtype, Poison::kNone);
  const Results got(inputs);
  CHECK(AttentionForwardPlain(got.Forward(inputs), 2), "no memory");
  CHECK(AttentionBackwardPlain(got.Backward(inputs), 2), "no memory");
  Results judge(exact);
  judge.output.CopyFrom(got.output);
  judge.statistics.CopyFrom(got.statistics);
  CHECK(AttentionBackwardPlain(judge.Backward(exact), 1), "no memory");
  const Tolerance reals = {1e-7, 1e-7};
  const Tolerance values = c.dtype == DType::kBfloat16  ? Tolerance{0.004, 1e-7}
                           : c.dtype == DType::kFloat16 ? Tolerance{5e-4, 1e-7}
                                                        : reals;
  CompareForward(inputs, got, want, values, reals);
  CompareBackward(inputs, got, judge, values, reals);
}

void RunCase(const Case& c) {
  const Inputs inputs(c, DType::kFloat64, Poison::kNone);
  const Results results(inputs);
  CHECK(AttentionForwardPlain(results.Forward(inputs), 1), "no memory");
  CHECK(AttentionBackwardPlain(results.Backward(inputs), 1), "no memory");
  CompareWithFormula(inputs, results);
  CompareGradients(inputs, results);
  CompareNarrow(inputs, results);
}

// NaN exactly where the formula has it.
void RunPoisoned(const Case& c, Poison poison) {
  const Inputs inputs(c, DType::kFloat64, poison);
  const Results results(inputs);
  CHECK(AttentionForwardPlain(results.Forward(inputs), 1), "no memory");
  const FormulaResults want = Formula(inputs, FormulaInputsOf(inputs));
  const std::vector<double> output = results.output.Values();
  for (size_t i = 0; i < output.size(); ++i)
    CHECK(std::isnan(output[i]) == std::isnan(want.output[i]),
          "output %zu: %g, not %Lg: %s", i, output[i], want.output[i],
          c.Name().c_str());
}

// Every element of a 16-bit type survives, and what lies between two goes to
// the nearer, from the middle to the even one.
template <typename T>
void CheckElements(uint16_t infinity) {
  const auto load = [](int bits) {
    return Load(T{static_cast<uint16_t>(bits)});
  };
  const auto store = [](double x) {
    T element;
    Store(x, &element);
    return static_cast<int>(element.bits);
  };
  for (int bits = 0; bits < infinity; ++bits) {
    CHECK(store(load(bits)) == bits, "%x", bits);
    CHECK(store(-load(bits)) == (bits | 0x8000), "%x", bits);
    if (bits + 1 == infinity) break;
    const double middle = (load(bits) + load(bits + 1)) / 2;
    CHECK(load(bits) < load(bits + 1), "%x", bits);
    CHECK(store(middle) == bits + bits % 2, "%x", bits);
    CHECK(store(std::nextafter(middle, 0.0)) == bits, "%x", bits);
    CHECK(store(std::nextafter(middle, 1e300)) == bits + 1, "%x", bits);
  }
  CHECK(load(infinity) == std::numeric_limits<double>::infinity(), "infinity");
  CHECK(store(load(infinity)) == infinity && store(1e300) == infinity,
        "infinity");
  CHECK(store(1e-300) == 0 && store(-1e-300) == 0x8000, "tiny");
  CHECK(std::isnan(load(infinity + 1)) && std::isnan(load(store(NAN))), "NaN");
}

// The known answers of Random123 1.09 for Philox4x32-10: counter, key, words. A
// word is what decides, so it is found by the two thresholds around it.
void CheckGenerator() {
  constexpr uint32_t kKnown[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8},
      {0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF,
       0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD},
      {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0,
       0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}};
  for (const auto& k : kKnown)
    for (int word = 0; word < 4; ++word) {
      const uint64_t seed = static_cast<uint64_t>(k[5]) << 32 | k[4];
      const int64_t key = int64_t{k[0]} * 4 + word;
      CHECK(DropoutKeeps(k[6 + word], seed, k[3], k[2], k[1], key), "%d", word);
      CHECK(!DropoutKeeps(k[6 + word] + 1, seed, k[3], k[2], k[1], key), "%d",
            word);
    }
  const AttentionShape shape = {2, 30, 50, 4, 4, 1, 1};
  std::vector<uint8_t> keep(2 * 4 * 30 * 50);
  AttentionDropoutMask(shape, 0.3, 7, keep.data());
  int kept = 0;
  for (uint8_t x : keep) kept += x;
  // 12000 draws: 0.7 +- 0.0042, four times over.
  CHECK(std::abs(kept / 12000.0 - 0.7) < 0.017, "%d", kept);
  CHECK(keep[((1 * 4 + 3) * 30 + 29) * 50 + 49] ==
            DropoutKeeps(DropoutThreshold(0.3), 7, 1, 3, 29, 49),
        "the order of the mask");
}

int Main() {
  CheckElements<Bfloat16>(0x7F80);
  CheckElements<Float16>(0x7C00);
  CheckGenerator();
  const std::vector<int64_t> few = {1, 2, 5};
  const CaseSizes sizes = {few, {1, 3, 6}, few, few};
  std::vector<Case> cases;
  const int pairs = AddCases(sizes, Terms::kAll, &cases) +
                    AddCases(sizes, Terms::kFew, &cases);
  for (const Case& c : cases) {
    RunCase(c);
    for (int poison = 1; poison < static_cast<int>(Poison::kCount); ++poison)
      RunPoisoned(c, static_cast<Poison>(poison));
  }
  std::printf("%zu cases, which cover %d pairs of options\n", cases.size(),
              pairs);
  return Failures() > 0;
}

}  // namespace
}  // namespace hw3tf

int main() { return hw3tf::Main(); }
