// Every recurrence: the plan of a call, the tasks over the pool, and, where
// there are too few sequences for the threads and their registers, the cutting
// of time.
//
// Without activation the recurrence is linear over the integers modulo 2^32 or
// 2^64. A chunk of n steps that begins with h ends with U^n h + e, where e is
// the end of the same chunk from 0. So all chunks run at once from 0, and their
// ends are combined one after the other. If states are wanted or sums must be
// checked, all chunks run again from their true first states.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kernels/recurrence/exact.h"
#include "kernels/recurrence/kernel_table.h"
#include "kernels/recurrence/parts.h"
#include "kernels/runtime/dispatch.h"
#include "kernels/runtime/parallel.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

constexpr std::align_val_t kAlignment{64};
struct Free {
  void operator()(char* bytes) const { ::operator delete(bytes, kAlignment); }
};
using Bytes = std::unique_ptr<char, Free>;

Bytes Allocate(int64_t bytes) {
  Bytes memory(static_cast<char*>(
      ::operator new(static_cast<size_t>(bytes), kAlignment)));
#if defined(HW3TF_POISON)
  std::memset(memory.get(), 0xA5, static_cast<size_t>(bytes));
#endif
  return memory;
}

// Sequences of a task: as many as keep states, sums and a panel of weights in
// the caches of a core.
constexpr int64_t kTaskRows = 32;
// Of the sums of a task's time block, which the next level of cache holds.
constexpr int64_t kBlockBytes = 256 * 1024;
constexpr int64_t kLongestBlock = 64;
// Multiplications of one core; and what a step of one row costs beside them.
constexpr double kProductsPerMicrosecond = 1e4, kMicrosecondsPerStep = 0.01;
// Fewer steps are not worth weights in another form.
constexpr int64_t kFewSteps = 8;
// Shorter chunks would be spent on powers of U.
constexpr int64_t kShortestChunk = 64;
constexpr int64_t kUnitsInChunks = 64;

bool IsDiagonal(const RecurrenceArgs& args) {
  const int64_t units = args.shape.units;
  for (int64_t i = 0; i < units; ++i)
    for (int64_t j = 0; j < units; ++j)
      if (i != j && WeightAt(args, args.recurrent_kernel, i * units + j) != 0)
        return false;
  return true;
}

bool FitInt16(const RecurrenceArgs& args, const void* weights, int64_t depth) {
  if (args.weight_dtype == IntDType::kInt8) return true;
  for (int64_t i = 0; i < depth * args.shape.units; ++i) {
    const int64_t weight = WeightAt(args, weights, i);
    if (weight < INT16_MIN || weight > INT16_MAX) return false;
  }
  return true;
}

// The largest sum of magnitudes of a column.
double Norm(const RecurrenceArgs& args, const void* weights, int64_t depth) {
  const auto units = static_cast<size_t>(args.shape.units);
  std::vector<double> sums(units, 0.0);
  for (int64_t i = 0; i < depth; ++i)
    for (size_t j = 0; j < units; ++j)
      sums[j] += std::fabs(static_cast<double>(WeightAt(
          args, weights, i * args.shape.units + static_cast<int64_t>(j))));
  return *std::max_element(sums.begin(), sums.end());
}

void PutState(const RecurrenceArgs& args, int64_t state, void* states,
              int64_t i) {
  if (args.state_dtype == IntDType::kInt64)
    static_cast<int64_t*>(states)[i] = state;
  else
    static_cast<int32_t*>(states)[i] = static_cast<int32_t>(state);
}

class RowsCall {
 public:
  explicit RowsCall(const RecurrenceArgs& args)
      : args_(args), kernels_(*ChosenInstructionSet().recurrence) {
    const RecurrenceShape& shape = args.shape;
    plan_.args = &args;
    plan_.diagonal = IsDiagonal(args);
    plan_.narrow = args.state_dtype == IntDType::kInt32 &&
                   FitInt16(args, args.kernel, shape.features) &&
                   FitInt16(args, args.recurrent_kernel, shape.units);
    plan_.checked = args.options.overflow != Overflow::kWrap ||
                    args.options.fractional_bits > 0;
    plan_.sequences = args.options.return_sequences;
    const int64_t lanes = args.state_dtype == IntDType::kInt64
                              ? kernels_.lanes32 / 2
                              : kernels_.lanes32;
    plan_.padded_units = (shape.units + lanes - 1) / lanes * lanes;
    plan_.kernel_norm = Norm(args, args.kernel, shape.features);
    plan_.recurrent_norm = Norm(args, args.recurrent_kernel, shape.units);
    plan_.exact = ExactStep;
    PackWeights();
  }

  RecurrenceResult Run(int num_threads) {
    const RecurrenceShape& shape = args_.shape;
    const double steps =
        static_cast<double>(shape.batch) * static_cast<double>(shape.timesteps);
    const double each =
        ProductsOfStep() / kProductsPerMicrosecond + kMicrosecondsPerStep;
    threads_ = RecurrenceThreads(num_threads, steps * each);
    const int64_t chunks = NumChunks();
    if (chunks > 1)
      RunChunks(chunks);
    else
      RunSequences();
    return overflow_.Result(args_);
  }

 private:
  void PackWeights() {
    const RecurrenceShape& shape = args_.shape;
    const int64_t bytes = StateBytes(args_);
    kernel_ = Allocate(kernels_.packed_bytes(plan_, shape.features));
    kernels_.pack(plan_, args_.kernel, shape.features, kernel_.get());
    bias_ = Allocate(plan_.padded_units * bytes);
    std::memset(bias_.get(), 0,
                static_cast<size_t>(plan_.padded_units * bytes));
    plan_.bias_norm = 0;
    for (int64_t j = 0; args_.bias && j < shape.units; ++j) {
      const int64_t b = StateAt(args_, args_.bias, j);
      plan_.bias_norm =
          std::max(plan_.bias_norm, std::fabs(static_cast<double>(b)));
      PutState(args_, b, bias_.get(), j);
    }
    if (plan_.diagonal) {
      recurrent_ = Allocate(plan_.padded_units * bytes);
      for (int64_t j = 0; j < plan_.padded_units; ++j)
        PutState(args_,
                 j < shape.units ? WeightAt(args_, args_.recurrent_kernel,
                                            j * shape.units + j)
                                 : 0,
                 recurrent_.get(), j);
    } else {
      recurrent_ = Allocate(kernels_.packed_bytes(plan_, shape.units));
      kernels_.pack(plan_, args_.recurrent_kernel, shape.units,
                    recurrent_.get());
    }
    if (NeedsWideWeights()) {
      wide_kernel_ =
          Allocate(kernels_.wide_packed_bytes(plan_, shape.features));
      kernels_.wide_pack(plan_, args_.kernel, shape.features,
                         wide_kernel_.get());
      if (!plan_.diagonal) {
        wide_recurrent_ =
            Allocate(kernels_.wide_packed_bytes(plan_, shape.units));
        kernels_.wide_pack(plan_, args_.recurrent_kernel, shape.units,
                           wide_recurrent_.get());
      }
    }
    plan_.wide_kernel = wide_kernel_.get();
    plan_.wide_recurrent_kernel = wide_recurrent_.get();
    plan_.kernel = kernel_.get();
    plan_.recurrent_kernel = recurrent_.get();
    plan_.bias = bias_.get();
  }

  // Whether sums of 64 bits could serve, and often enough for their weights.
  bool NeedsWideWeights() const {
    return plan_.checked && args_.state_dtype == IntDType::kInt32 &&
           args_.shape.batch * args_.shape.timesteps >= kFewSteps;
  }

  // Runs rows, each without more steps than the one before.
  void RunTasks(const RowsPlan& call, std::vector<RecurrenceRow>* rows,
                TestPath path) {
    if (rows->empty()) return;
    RowsPlan plan = call;
    const auto count = static_cast<int64_t>(rows->size());
    const int64_t per_thread = (count + threads_ - 1) / threads_;
    const int64_t per_task =
        std::min(per_thread, Hooked(test_hooks.task_rows, kTaskRows));
    const int64_t step_bytes = per_task * plan.padded_units * StateBytes(args_);
    plan.time_block =
        std::clamp<int64_t>(kBlockBytes / step_bytes, 1,
                            Hooked(test_hooks.time_block, kLongestBlock));
    plan.time_block =
        std::clamp<int64_t>(rows->front().steps, 1, plan.time_block);
    const int64_t scratch = kernels_.rows_scratch(plan, per_task);
    const Bytes memory = Allocate(scratch * threads_);
    const int64_t tasks = (count + per_task - 1) / per_task;
    ParallelFor(tasks, threads_, path, [&](int64_t task, int worker) {
      RecurrenceRow* const first = rows->data() + task * per_task;
      const int64_t mine = std::min(per_task, count - task * per_task);
      kernels_.rows(plan, first, mine, memory.get() + worker * scratch);
      for (int64_t r = 0; r < mine; ++r)
        if (first[r].overflow >= 0)
          overflow_.Report(first[r].batch_entry, first[r].overflow);
    });
  }

  const void* Initial(int64_t b) const {
    if (!args_.initial_state) return nullptr;
    return static_cast<const char*>(args_.initial_state) +
           b * args_.shape.units * StateBytes(args_);
  }

  void* Last(int64_t b) const {
    if (plan_.sequences) return nullptr;
    return static_cast<char*>(args_.output) +
           b * args_.shape.units * StateBytes(args_);
  }

  void RunSequences() {
    std::vector<RecurrenceRow> rows;
    rows.reserve(static_cast<size_t>(args_.shape.batch));
    for (int64_t b = 0; b < args_.shape.batch; ++b)
      rows.push_back({b, 0, args_.shape.timesteps, Initial(b), Last(b), -1});
    RunTasks(plan_, &rows, kRowsPath);
  }

  // The number of chunks into which time is cut: so many that all registers of
  // all threads are in use. Cutting doubles the work where states are wanted or
  // checked.
  int64_t NumChunks() const {
    const RecurrenceShape& shape = args_.shape;
    if (args_.options.activation != Activation::kNone ||
        args_.options.overflow == Overflow::kSaturate ||
        args_.options.fractional_bits > 0 || shape.units > kUnitsInChunks)
      return 1;
    const int64_t wanted = 2 * kernels_.tile_rows * threads_;
    const int64_t shortest = Hooked(test_hooks.shortest_chunk,
                                    std::max(kShortestChunk, 8 * shape.units));
    if (shape.batch == 0 || shape.batch * 4 > wanted) return 1;
    const int64_t chunks =
        std::min(wanted / shape.batch, shape.timesteps / shortest);
    return test_hooks.shortest_chunk || chunks < 2 || PaysInChunks(chunks)
               ? chunks
               : 1;
  }

  // Whether so many chunks side by side, once or twice, the powers of U and the
  // products with them take less time than one step after the other. It pays
  // where there are more threads than sequences, rarely otherwise. On a Zen 4,
  // in ms, in chunks and in order: B1 T1024, 64 units 1.1 and 0.2; B1 T4096, 16
  // units, twice, 2 threads 0.16 and 0.19, 1 thread 0.29 and 0.20.
  bool PaysInChunks(int64_t chunks) const {
    constexpr double kMicroseconds = 0.03, kEachProduct = 2.5e-5;
    constexpr double kGainOfRows = 1.2, kPowerProductsPerMicrosecond = 2.5e3;
    const RecurrenceShape& shape = args_.shape;
    const auto units = static_cast<double>(shape.units);
    const auto batch = static_cast<double>(shape.batch);
    const auto steps = static_cast<double>(shape.timesteps);
    const double work =
        batch * steps * (kMicroseconds + kEachProduct * ProductsOfStep());
    const auto threads = static_cast<double>(threads_);
    const double passes = plan_.checked || plan_.sequences ? 2.0 : 1.0;
    const auto count = static_cast<double>(chunks);
    const double squarings = std::log2(steps / count);
    const double powers = (units * squarings + batch * count * squarings / 2) *
                          units * units / kPowerProductsPerMicrosecond;
    return passes * work / kGainOfRows / std::min(threads, batch * count) +
               powers <
           work / std::min(threads, batch);
  }

  double ProductsOfStep() const {
    return static_cast<double>(plan_.padded_units) *
           static_cast<double>(args_.shape.features +
                               (plan_.diagonal ? 1 : args_.shape.units));
  }

  // Rows for all chunks; the last of each sequence, which are shorter, behind
  // all others.
  std::vector<RecurrenceRow> ChunkRows(int64_t length) const {
    std::vector<RecurrenceRow> rows;
    const int64_t timesteps = args_.shape.timesteps;
    const int64_t full = timesteps / length;
    for (int64_t b = 0; b < args_.shape.batch; ++b)
      for (int64_t c = 0; c < full; ++c)
        rows.push_back({b, c * length, length, nullptr, nullptr, -1});
    if (timesteps > full * length)
      for (int64_t b = 0; b < args_.shape.batch; ++b)
        rows.push_back({b, full * length, timesteps - full * length, nullptr,
                        nullptr, -1});
    return rows;
  }

  void RunChunks(int64_t chunks) {
    const int64_t length = (args_.shape.timesteps + chunks - 1) / chunks;
    const int64_t bytes = args_.shape.units * StateBytes(args_);
    std::vector<RecurrenceRow> rows = ChunkRows(length);
    const auto count = static_cast<int64_t>(rows.size());
    const Bytes memory = Allocate(2 * count * bytes);
    char* const begins = memory.get() + count * bytes;
    RowsPlan ends = plan_;
    ends.checked = ends.sequences = false;
    for (int64_t i = 0; i < count; ++i)
      rows[static_cast<size_t>(i)].last = memory.get() + i * bytes;
    RunTasks(ends, &rows, kRowChunksPath);
    PutTogether(rows, begins);
    if (!plan_.checked && !plan_.sequences) return;
    for (int64_t i = 0; i < count; ++i) {
      rows[static_cast<size_t>(i)].initial = begins + i * bytes;
      rows[static_cast<size_t>(i)].last = nullptr;
    }
    RunTasks(plan_, &rows, kRowChunksPath);
  }

  int64_t UnmaskedSteps(const RecurrenceRow& row) const {
    if (!args_.mask) return row.steps;
    const int64_t timesteps = args_.shape.timesteps;
    int64_t first = row.first_step;
    if (args_.options.reverse) first = timesteps - first - row.steps;
    const uint8_t* mask = args_.mask + row.batch_entry * timesteps + first;
    int64_t unmasked = 0;
    for (int64_t i = 0; i < row.steps; ++i) unmasked += mask[i] != 0;
    return unmasked;
  }

  using Numbers = std::vector<uint64_t>;  // modulo 2^64, and so modulo 2^32

  // Row by matrix, as states are rows: h U.
  Numbers Times(const Numbers& rows, const Numbers& matrix) const {
    const auto units = static_cast<size_t>(args_.shape.units);
    Numbers product(rows.size(), 0);
    for (size_t r = 0; r < rows.size() / units; ++r)
      for (size_t i = 0; i < units; ++i)
        for (size_t j = 0; j < units; ++j)
          product[r * units + j] += rows[r * units + i] * matrix[i * units + j];
    return product;
  }

  // From the ends of all chunks from 0 to their beginnings, and to the last
  // states, if they are wanted.
  void PutTogether(const std::vector<RecurrenceRow>& rows, char* begins) const {
    const int64_t units = args_.shape.units;
    std::vector<Numbers> powers(1);  // U^(2^i)
    for (int64_t i = 0; i < units * units; ++i)
      powers[0].push_back(
          static_cast<uint64_t>(WeightAt(args_, args_.recurrent_kernel, i)));
    while (int64_t{1} << powers.size() <= rows.front().steps)
      powers.push_back(Times(powers.back(), powers.back()));
    std::vector<Numbers> states(static_cast<size_t>(args_.shape.batch));
    for (int64_t b = 0; b < args_.shape.batch; ++b)
      for (int64_t j = 0; j < units; ++j)
        states[static_cast<size_t>(b)].push_back(static_cast<uint64_t>(
            Initial(b) ? StateAt(args_, Initial(b), j) : 0));
    for (size_t i = 0; i < rows.size(); ++i) {
      Numbers& state = states[static_cast<size_t>(rows[i].batch_entry)];
      for (int64_t j = 0; j < units; ++j)
        PutState(args_, static_cast<int64_t>(state[static_cast<size_t>(j)]),
                 begins, static_cast<int64_t>(i) * units + j);
      const int64_t steps = UnmaskedSteps(rows[i]);
      for (size_t power = 0; power < powers.size(); ++power)
        if (steps >> power & 1) state = Times(state, powers[power]);
      for (int64_t j = 0; j < units; ++j)
        state[static_cast<size_t>(j)] +=
            static_cast<uint64_t>(StateAt(args_, rows[i].last, j));
    }
    for (int64_t b = 0; !plan_.sequences && b < args_.shape.batch; ++b)
      for (int64_t j = 0; j < units; ++j)
        PutState(args_,
                 static_cast<int64_t>(
                     states[static_cast<size_t>(b)][static_cast<size_t>(j)]),
                 Last(b), j);
  }

  const RecurrenceArgs& args_;
  const RecurrenceKernels& kernels_;
  RowsPlan plan_{};
  Bytes kernel_, recurrent_, bias_, wide_kernel_, wide_recurrent_;
  int threads_ = 1;
  FirstOverflow overflow_;
};

}  // namespace

RecurrenceResult RecurrenceOverRows(const RecurrenceArgs& args,
                                    int num_threads) {
  return RowsCall(args).Run(num_threads);
}

}  // namespace hw3tf
