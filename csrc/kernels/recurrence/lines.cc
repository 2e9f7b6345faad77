// One feature and one unit: sequences are lines of memory, cut into blocks that
// stay in the cache of a core.
//
// A block is read twice, from memory for its own end, then from the cache for
// its states; between the two it gets the state that the block before it ends
// with and hands on its own (a scan with decoupled look-back: Merrill & Garland
// 2016). So the threads share one long sequence, memory is read once, and what
// is handed on is a number of the ring, the same in every order.
//
// Bounds prove of a block at a time that it cannot overflow, from its largest
// input and the state it begins with, which is exact, because all blocks before
// it were proven. A block without proof is cut into pieces, and a piece without
// one is summed step by step.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/recurrence/exact.h"
#include "kernels/recurrence/kernel_table.h"
#include "kernels/recurrence/parts.h"
#include "kernels/runtime/dispatch.h"
#include "kernels/runtime/parallel.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

// Half of a cache of 256 KiB, for inputs alone and for inputs and states. Twice
// and half of it are as fast.
constexpr int64_t kBlock = 32768;
constexpr int64_t kPiece = 512;
// Larger outputs than this do not stay in the caches: stores go past them,
// which saves the reading of what is overwritten.
constexpr int64_t kStreamBytes = int64_t{1} << 25;
// Of one core; what is small enough to run serially is in the caches.
constexpr double kInputsPerMicrosecond = 2000;

uint64_t Power(uint64_t base, int64_t exponent) {
  uint64_t power = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) power *= base;
  return power;
}

// 1 + u + ... + u^(count - 1)
uint64_t PowerSum(uint64_t u, int64_t count) {
  if (count == 0) return 0;
  const uint64_t half = PowerSum(u, count / 2);
  const uint64_t even = half + Power(u, count / 2) * half;
  return count % 2 ? even * u + 1 : even;
}

class Lines {
 public:
  explicit Lines(const RecurrenceArgs& args)
      : args_(args),
        kernels_(*ChosenInstructionSet().recurrence),
        block_(Hooked(test_hooks.line_block, kBlock)),
        piece_(Hooked(test_hooks.line_piece, kPiece)) {
    line_.input_dtype = args.input_dtype;
    line_.state_dtype = args.state_dtype;
    line_.kernel = WeightAt(args, args.kernel, 0);
    line_.recurrent_kernel = WeightAt(args, args.recurrent_kernel, 0);
    line_.bias = args.bias ? StateAt(args, args.bias, 0) : 0;
    const bool downwards = args.input_time_stride < 0;
    line_.reverse = args.options.reverse != downwards;
    const int64_t outputs =
        args.options.return_sequences ? args.shape.timesteps : 1;
    stream_ = args.shape.batch * outputs * StateBytes(args) >=
              Hooked(test_hooks.stream_bytes, kStreamBytes);
    blocks_ = (args.shape.timesteps + block_ - 1) / block_;
    if (blocks_ > 1)
      ends_ = std::vector<End>(static_cast<size_t>(args.shape.batch * blocks_));
  }

  RecurrenceResult Run(int num_threads) {
    const RecurrenceShape& shape = args_.shape;
    const double inputs =
        static_cast<double>(shape.batch) * static_cast<double>(shape.timesteps);
    const int threads =
        RecurrenceThreads(num_threads, inputs / kInputsPerMicrosecond);
    if (blocks_ > 1) {
      ParallelFor(shape.batch * blocks_, threads, kLineBlocksPath,
                  [this](int64_t task, int) { RunBlock(task); });
    } else {
      const int64_t rows =
          std::max<int64_t>(1, block_ / std::max<int64_t>(1, shape.timesteps));
      ParallelFor((shape.batch + rows - 1) / rows, threads, kWholeLinesPath,
                  [&](int64_t task, int) {
                    const int64_t end =
                        std::min(shape.batch, (task + 1) * rows);
                    for (int64_t b = task * rows; b < end; ++b) RunWhole(b);
                  });
    }
    return overflow_.Result(args_);
  }

 private:
  // What a block hands to the next.
  struct End {
    std::atomic<bool> known{false};
    int64_t state = 0;
  };

  int64_t Initial(int64_t b) const {
    return args_.initial_state ? StateAt(args_, args_.initial_state, b) : 0;
  }

  void RunWhole(int64_t b) {
    const int64_t steps = args_.shape.timesteps;
    const Line line = At(b, 0, steps);
    int64_t state = Initial(b);
    // Without a proof to find, all states need a single pass.
    if (args_.options.overflow == Overflow::kWrap && Sequences() && steps > 0) {
      kernels_.line_states(line, state, Output(b, 0), stream_);
      return;
    }
    LineEnd end{};
    if (steps > 0) kernels_.line_end(line, &end);
    if (Advance(b, 0, line, end, &state)) Write(b, 0, line, Initial(b));
    if (!Sequences()) PutState(Output(b, 0), state);
  }

  void RunBlock(int64_t task) {
    const int64_t b = task / blocks_, block = task % blocks_;
    const int64_t first = block * block_;
    const Line line =
        At(b, first, std::min(block_, args_.shape.timesteps - first));
    LineEnd end;
    kernels_.line_end(line, &end);
    const int64_t before =
        block ? Wait(ends_[static_cast<size_t>(task - 1)]) : Initial(b);
    int64_t state = before;
    const bool linear = Advance(b, first, line, end, &state);
    ends_[static_cast<size_t>(task)].state = state;
    ends_[static_cast<size_t>(task)].known.store(true,
                                                 std::memory_order_release);
    if (linear) Write(b, first, line, before);
    if (!Sequences() && block == blocks_ - 1) PutState(Output(b, 0), state);
  }

  // Tasks are taken in ascending order: the block before has been taken, and
  // waits for nobody but those before it.
  static int64_t Wait(const End& end) {
    for (int spins = 0; !end.known.load(std::memory_order_acquire); ++spins)
      if (spins > 1000) std::this_thread::yield();
    return end.state;
  }

  bool Sequences() const { return args_.options.return_sequences; }

  // Steps first .. first + count - 1 of a batch entry.
  Line At(int64_t b, int64_t first, int64_t count) const {
    Line line = line_;
    const int64_t t =
        args_.options.reverse ? args_.shape.timesteps - 1 - first : first;
    const int64_t index =
        b * args_.input_batch_stride + t * args_.input_time_stride;
    line.inputs = InputAt(index);
    line.count = count;
    return line;
  }

  const void* InputAt(int64_t index) const {
    int64_t bytes = 1;
    if (args_.input_dtype == IntDType::kInt16) bytes = 2;
    if (args_.input_dtype == IntDType::kInt32) bytes = 4;
    if (args_.input_dtype == IntDType::kInt64) bytes = 8;
    return static_cast<const char*>(args_.inputs) + index * bytes;
  }

  void* Output(int64_t b, int64_t step) const {
    const int64_t index = Sequences() ? b * args_.shape.timesteps + step : b;
    return static_cast<char*>(args_.output) + index * StateBytes(args_);
  }

  void PutState(void* to, int64_t state) const {
    const auto narrow = static_cast<int32_t>(state);
    if (args_.state_dtype == IntDType::kInt64)
      std::memcpy(to, &state, sizeof state);
    else
      std::memcpy(to, &narrow, sizeof narrow);
  }

  void Write(int64_t b, int64_t first, const Line& line, int64_t state) const {
    if (Sequences() && line.count > 0)
      kernels_.line_states(line, state, Output(b, first), stream_);
  }

  int64_t Narrowed(uint64_t state) const {
    return args_.state_dtype == IntDType::kInt64
               ? static_cast<int64_t>(state)
               : static_cast<int32_t>(static_cast<uint32_t>(state));
  }

  // The state after the line. Returns whether it was linear, so that its states
  // are still to be written; otherwise this has written them.
  bool Advance(int64_t b, int64_t first, const Line& line, const LineEnd& end,
               int64_t* state) {
    if (args_.options.overflow == Overflow::kWrap ||
        CannotOverflow(line, end, *state)) {
      const auto u = static_cast<uint64_t>(line.recurrent_kernel);
      *state = Narrowed(
          static_cast<uint64_t>(*state) * Power(u, line.count) +
          static_cast<uint64_t>(end.sum) * static_cast<uint64_t>(line.kernel) +
          static_cast<uint64_t>(line.bias) * PowerSum(u, line.count));
      return true;
    }
    if (line.count > piece_) {
      for (int64_t done = 0; done < line.count; done += piece_) {
        const Line piece =
            At(b, first + done, std::min(piece_, line.count - done));
        LineEnd piece_end;
        kernels_.line_end(piece, &piece_end);
        const int64_t before = *state;
        if (Advance(b, first + done, piece, piece_end, state))
          Write(b, first + done, piece, before);
      }
    } else {
      StepByStep(b, first, line, state);
    }
    return false;
  }

  bool CannotOverflow(const Line& line, const LineEnd& end,
                      int64_t state) const {
    const double u = std::fabs(static_cast<double>(line.recurrent_kernel));
    const double input =
        end.sign_changes
            ? std::ldexp(1.0, 63 - __builtin_clzll(end.sign_changes))
            : 0.0;
    const double each = input * std::fabs(static_cast<double>(line.kernel)) +
                        std::fabs(static_cast<double>(line.bias));
    const double start = std::fabs(static_cast<double>(state));
    const auto count = static_cast<double>(line.count);
    double most = u * start + each;
    if (u == 1) most = start + each * count;
    if (u > 1) {
      const double power = std::pow(u, count);
      most = power * start + each * ((power - 1) / (u - 1));
    }
    const double limit =
        args_.state_dtype == IntDType::kInt64 ? 0x1p63 : 0x1p31;
    // The rounding of these few operations, many times over.
    return most * (1 + 1e-9) < limit;
  }

  void StepByStep(int64_t b, int64_t first, const Line& line, int64_t* state) {
    const bool wide = args_.state_dtype == IntDType::kInt64;
    for (int64_t i = 0; i < line.count; ++i) {
      const int64_t x =
          WidenedInput(args_.input_dtype, line.inputs, line.reverse ? -i : i);
      const int32_t narrow[2] = {static_cast<int32_t>(x),
                                 static_cast<int32_t>(*state)};
      int32_t next = 0;
      bool overflows;
      if (wide) {
        const int64_t before = *state;
        overflows = ExactStep(args_, &x, &before, state);
      } else {
        overflows = ExactStep(args_, &narrow[0], &narrow[1], &next);
        *state = next;
      }
      if (overflows && args_.options.overflow == Overflow::kRaise)
        return overflow_.Report(b, first + i);
      if (Sequences()) PutState(Output(b, first + i), *state);
    }
  }

  const RecurrenceArgs& args_;
  const RecurrenceKernels& kernels_;
  const int64_t block_, piece_;
  Line line_{};
  bool stream_;
  int64_t blocks_;
  std::vector<End> ends_;
  FirstOverflow overflow_;
};

}  // namespace

bool IsLine(const RecurrenceArgs& args) {
  const bool adjacent = args.input_time_stride == 1 ||
                        args.input_time_stride == -1 ||
                        args.shape.timesteps <= 1;
  return args.shape.units == 1 && args.shape.features == 1 && adjacent &&
         args.options.activation == Activation::kNone &&
         args.options.fractional_bits == 0 && !args.mask;
}

RecurrenceResult RecurrenceOverLines(const RecurrenceArgs& args,
                                     int num_threads) {
  return Lines(args).Run(num_threads);
}

}  // namespace hw3tf
