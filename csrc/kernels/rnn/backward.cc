#include "kernels/rnn/call.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

// Of dz in a chunk: what the threads write for each other stays in the caches
// between the two.
constexpr int64_t kChunkBytes = 1024 * 1024;
// Rows of K or R whose gradients are one task; and flat rows of a chunk.
constexpr int64_t kWeightRows = 48, kInputRows = 48;

template <typename Real>
class BackwardPass {
 public:
  BackwardPass(const RnnBackwardArgs& args, int num_threads)
      : args_(args),
        call_(args.cell, args.dtype, args.shape, args.options, args.operands,
              /*pairs=*/false, num_threads),
        plan_(call_.plan) {}

  void Run() {
    PlaceStates();
    PlaceGradients();
    if (plan_.rows > 0) {
      call_.PackBackward(plan_.grad_inputs != nullptr);
      PlaceChunks();
      for (auto chunk = chunk_ends_.rbegin(); chunk + 1 != chunk_ends_.rend();
           ++chunk)
        RunChunk(*(chunk + 1), *chunk);
    }
    Finish();
  }

 private:
  void PlaceStates() {
    const RnnShape& shape = plan_.shape;
    // The backward pass reads only.
    call_.PlaceKept(const_cast<void*>(args_.kept));
    if (!plan_.h)
      plan_.h = const_cast<Real*>(static_cast<const Real*>(args_.outputs));
    const int64_t steps = plan_.options.return_sequences ? shape.timesteps : 1;
    grad_outputs_.Set(args_.grad_outputs, shape.batch * steps * shape.units,
                      args_.dtype, call_.threads);
    plan_.grad_outputs = grad_outputs_.get();
  }

  void PlaceGradients() {
    const RnnShape& shape = plan_.shape;
    if (args_.grad_inputs) {
      if (IsHalf(args_.dtype)) {
        grad_inputs_.Resize(shape.batch * shape.timesteps * shape.features);
        plan_.grad_inputs = grad_inputs_.get();
      } else {
        plan_.grad_inputs = static_cast<Real*>(args_.grad_inputs);
      }
    }
    const int64_t rows = std::max<int64_t>(plan_.rows, 1);
    grad_h_.Resize(rows * plan_.grad_stride);
    grad_h_.Zero();
    plan_.grad_h = grad_h_.get();
    const int64_t states = shape.batch * shape.units;
    last_h_.Set(args_.grad_last_h, states, args_.dtype, 1);
    last_c_.Set(args_.grad_last_c, states, args_.dtype, 1);
    FillRows(last_h_.get(), plan_.grad_h, plan_.grad_stride);
    grad_c_.Resize(rows * plan_.padded_units);
    grad_c_.Zero();
    plan_.grad_c = grad_c_.get();
    FillRows(last_c_.get(), plan_.grad_c, plan_.padded_units);
    const int64_t vectors =
        RnnVectors(plan_.cell) * call_.kernels.lanes * plan_.panels;
    kernel_.Resize(vectors * shape.features);
    kernel_.Zero();
    recurrent_kernel_.Resize(vectors * shape.units);
    recurrent_kernel_.Zero();
    bias_.Resize(plan_.panels * kRnnSlots * call_.kernels.lanes);
    bias_.Zero();
  }

  void FillRows(const Real* from, Real* to, int64_t stride) const {
    const int64_t units = plan_.shape.units;
    for (int64_t row = 0; row < plan_.rows && from; ++row)
      std::copy_n(from + plan_.order[row] * units, units, to + row * stride);
  }

  // Chunks are fixed by shape and lengths: sums over them have the same order
  // for any number of threads.
  void PlaceChunks() {
    const int64_t bytes_of_row = plan_.panels * kRnnSlots *
                                 call_.kernels.lanes *
                                 static_cast<int64_t>(sizeof(Real));
    const int64_t enough =
        Hooked(test_hooks.rnn_chunk_rows,
               std::max<int64_t>(kChunkBytes / bytes_of_row, 1));
    int64_t rows = 0, most_rows = 0, most_steps = 0;
    chunk_ends_.assign(1, 0);
    for (int64_t step = 0; step < call_.rows.longest(); ++step) {
      if (rows > 0 && rows + plan_.active[step] > enough) {
        chunk_ends_.push_back(step);
        rows = 0;
      }
      rows += plan_.active[step];
      most_rows = std::max(most_rows, rows);
      most_steps = std::max(most_steps, step + 1 - chunk_ends_.back());
    }
    chunk_ends_.push_back(call_.rows.longest());
    offsets_.Resize(most_steps);
    dz_.Resize(plan_.panels * most_rows * kRnnSlots * call_.kernels.lanes);
    x_.Resize(kRnnMostGates * most_rows);
    grad_x_.Resize(most_rows);
    row_.Resize(most_rows);
    chunk_.grad_x = grad_x_.get();
    chunk_.row = row_.get();
    h_.Resize(kRnnMostGates * most_rows);
    placed_x_.Resize(std::max(plan_.input_dropouts, 1) * most_rows *
                     plan_.shape.features);
    const bool resets =
        plan_.cell == RnnCell::kGru && !plan_.options.reset_after;
    const int gates = resets ? 3 : std::max(plan_.recurrent_dropouts, 1);
    placed_h_.Resize(gates * most_rows * plan_.shape.units);
    chunk_.offsets = offsets_.get();
    chunk_.flat_rows = most_rows;
    chunk_.dz = dz_.get();
    chunk_.x = x_.get();
    chunk_.h = h_.get();
    chunk_.placed_x = placed_x_.get();
    chunk_.placed_h = placed_h_.get();
  }

  void RunChunk(int64_t first_step, int64_t last_step) {
    chunk_.first_step = first_step;
    chunk_.last_step = last_step;
    chunk_.used_rows = 0;
    for (int64_t step = first_step; step < last_step; ++step) {
      offsets_[step - first_step] = chunk_.used_rows;
      chunk_.used_rows += plan_.active[step];
    }
    const bool resets =
        args_.cell == RnnCell::kGru && !args_.options.reset_after;
    if (FewRows(plan_.rows, call_.threads, call_.weight_bytes()) && !resets)
      RunTogether();
    else
      RunRows(plan_.active[first_step]);
    AddProducts();
  }

  void RunRows(int64_t rows) {
    const int64_t most =
        call_.rows.masked() ? 2 * call_.threads : call_.threads;
    const int64_t tasks = std::min(rows, std::max<int64_t>(1, most));
    const int64_t height = (rows + tasks - 1) / tasks;
    const int64_t reals = BackwardReals(height);
    Reserve(reals * std::min<int64_t>(call_.threads, tasks));
    ParallelFor(tasks, call_.threads, kRnnRowsBackPath,
                [&](int64_t task, int worker) {
                  const int64_t first = task * rows / tasks;
                  const int64_t last = (task + 1) * rows / tasks;
                  call_.kernels.backward(plan_, chunk_, first, last,
                                         scratch_.get() + worker * reals);
                });
  }

  // Few rows: every thread has some of the columns of R^T, and waits for the
  // others at each step.
  void RunTogether() {
    const int64_t width = kRnnSlots * call_.kernels.lanes;
    const int64_t columns = (plan_.shape.units + width - 1) / width;
    const auto parts = static_cast<int>(
        std::min<int64_t>({call_.threads, columns, int64_t{kMostParts}}));
    const int64_t reals = BackwardReals(plan_.rows);
    Reserve(reals * parts);
    const int64_t steps = chunk_.last_step - chunk_.first_step;
    ParallelPhases(steps + 1, parts, kRnnUnitsBackPath,
                   [&](int64_t phase, int part, int worker) {
                     call_.kernels.step_back(
                         plan_, chunk_, chunk_.last_step - 1 - phase,
                         part * columns / parts, (part + 1) * columns / parts,
                         scratch_.get() + worker * reals);
                   });
  }

  int64_t BackwardReals(int64_t rows) const {
    return call_.kernels.backward_scratch(plan_, rows) /
           static_cast<int64_t>(sizeof(Real));
  }

  void Reserve(int64_t reals) {
    if (scratch_.size() < reals) scratch_.Resize(reals);
  }

  // The gradients of K, R and b, and of the inputs: products over the chunk.
  void AddProducts() {
    const auto blocks = [](int64_t size, int64_t block) {
      return (size + block - 1) / block;
    };
    const int64_t of_kernel = blocks(plan_.shape.features, kWeightRows);
    const int64_t of_both = of_kernel + blocks(plan_.shape.units, kWeightRows);
    const int64_t of_weights = plan_.panels * of_both;
    const int64_t of_inputs =
        plan_.grad_inputs ? blocks(chunk_.used_rows, kInputRows) : 0;
    const RnnWeightGradients<Real> gradients = {
        kernel_.get(), recurrent_kernel_.get(), bias_.get()};
    const int64_t reals = BackwardReals(kInputRows);
    Reserve(reals * call_.threads);
    ParallelFor(
        of_weights + of_inputs, call_.threads, [&](int64_t task, int worker) {
          if (task >= of_weights) {
            const int64_t first = (task - of_weights) * kInputRows;
            return call_.kernels.inputs(
                plan_, chunk_, first,
                std::min(first + kInputRows, chunk_.used_rows),
                scratch_.get() + worker * reals);
          }
          const int64_t panel = task / of_both, block = task % of_both;
          const bool recurrent = block >= of_kernel;
          const int64_t first =
              (recurrent ? block - of_kernel : block) * kWeightRows;
          const int64_t depth =
              recurrent ? plan_.shape.units : plan_.shape.features;
          call_.kernels.weights(plan_, chunk_, gradients, recurrent, panel,
                                first, std::min(first + kWeightRows, depth));
        });
  }

  void Finish() {
    if (args_.grad_kernel)
      call_.Unpack(kernel_.get(), false, args_.grad_kernel);
    if (args_.grad_recurrent_kernel)
      call_.Unpack(recurrent_kernel_.get(), true, args_.grad_recurrent_kernel);
    if (args_.grad_bias) call_.UnpackBias(bias_.get(), false, args_.grad_bias);
    if (args_.grad_recurrent_bias)
      call_.UnpackBias(bias_.get(), true, args_.grad_recurrent_bias);
    ParallelFor(plan_.shape.batch, call_.threads, [&](int64_t entry, int) {
      FinishState(entry, plan_.grad_h, plan_.grad_stride, last_h_.get(),
                  args_.grad_initial_h);
      FinishState(entry, plan_.grad_c, plan_.padded_units, last_c_.get(),
                  args_.grad_initial_c);
      if (args_.grad_inputs) FinishInputs(entry);
    });
  }

  // An entry without steps hands its states on.
  void FinishState(int64_t entry, const Real* grads, int64_t stride,
                   const Real* grad_last, void* to) const {
    if (!to) return;
    const int64_t row = call_.rows.RowOf(entry), units = plan_.shape.units;
    const Real* from = grad_last ? grad_last + entry * units : plan_.zeros;
    if (row >= 0) from = grads + row * stride;
    StoreAs(from, args_.dtype, units, to, entry * units);
  }

  // What is masked has no gradient.
  void FinishInputs(int64_t entry) {
    const int64_t timesteps = plan_.shape.timesteps;
    const int64_t features = plan_.shape.features;
    Real* const rows = plan_.grad_inputs + entry * timesteps * features;
    for (int64_t position = 0; position < timesteps && call_.rows.masked();
         ++position) {
      if (call_.rows.IsStep(entry, position)) continue;
      const int64_t time =
          plan_.options.reverse ? timesteps - 1 - position : position;
      std::fill_n(rows + time * features, features, Real{0});
    }
    StoreAs(rows, args_.dtype, timesteps * features, args_.grad_inputs,
            entry * timesteps * features);
  }

  const RnnBackwardArgs& args_;
  RnnCall<Real> call_;
  RnnPlan<Real>& plan_;
  RnnChunk<Real> chunk_{};
  std::vector<int64_t> chunk_ends_;
  Widened<Real> grad_outputs_, last_h_, last_c_;
  Memory<int64_t> offsets_;
  Memory<const Real*> x_, h_;
  Memory<Real*> grad_x_;
  Memory<int32_t> row_;
  Memory<Real> dz_, placed_x_, placed_h_, grad_inputs_, grad_h_, grad_c_,
      kernel_, recurrent_kernel_, bias_, scratch_;
};

}  // namespace

bool RnnBackward(const RnnBackwardArgs& args, int num_threads) {
  const FloatingPointScope scope;
  try {
    if (args.dtype == RnnDType::kFloat64)
      BackwardPass<double>(args, num_threads).Run();
    else
      BackwardPass<float>(args, num_threads).Run();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace hw3tf
