// The TensorFlow ops OwnOpRmsNorm and OwnOpRmsNormGrad, for the CPU.

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "tensorflow.h"

namespace {

using own_op::Options;

// Calls function(status), and throws if the status then holds an error.
template <typename Function>
void Call(const Function& function) {
  const std::unique_ptr<TF_Status, void (*)(TF_Status*)> status(TF_NewStatus(),
                                                                TF_DeleteStatus);
  function(status.get());
  if (TF_GetCode(status.get()) != TF_OK)
    throw std::runtime_error(TF_Message(status.get()));
}

struct Tensor {  // of floats
  Tensor(TF_OpKernelContext* context, int input) {
    Call([&](TF_Status* status) { TF_GetInput(context, input, &tensor, status); });
    for (int i = 0; i < TF_NumDims(tensor); ++i) dims.push_back(TF_Dim(tensor, i));
  }
  Tensor(TF_OpKernelContext* context, int output, const Tensor& like)
      : dims(like.dims) {
    size_t bytes = sizeof(float);
    for (int64_t size : dims) bytes *= static_cast<size_t>(size);
    const int rank = static_cast<int>(dims.size());
    Call([&](TF_Status* status) {
      tensor = TF_AllocateOutput(context, output, TF_FLOAT, dims.data(), rank, bytes,
                                 status);
    });
  }
  ~Tensor() { TF_DeleteTensor(tensor); }
  Tensor(const Tensor&) = delete;
  float* data() const { return static_cast<float*>(TF_TensorData(tensor)); }

  TF_Tensor* tensor = nullptr;
  std::vector<int64_t> dims;
};

void Require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

template <bool gradient>
void Run(Options o, TF_OpKernelContext* context) {
  const Tensor x(context, 0), scale(context, 1);
  Require(!x.dims.empty(), "`x` must have at least 1 axis");
  o.columns = x.dims.back(), o.rows = 1;
  for (size_t i = 0; i + 1 < x.dims.size(); ++i) o.rows *= x.dims[i];
  Require(scale.dims == std::vector{o.columns},
          "`scale` must have shape (" + std::to_string(o.columns) + ",)");
  const Tensor y(context, 0, x);  // or the gradient of x
  if constexpr (gradient) {
    const Tensor dy(context, 2), dscale(context, 1, scale);
    Require(dy.dims == x.dims, "`dy` must have the shape of `x`");
    RmsNormGrad(o, x.data(), scale.data(), dy.data(), y.data(), dscale.data());
  } else {
    RmsNorm(o, x.data(), scale.data(), y.data());
  }
}

// TensorFlow is compiled without exceptions: none may reach it.
template <bool gradient>
void Compute(void* options, TF_OpKernelContext* context) {
  const auto fail = [&](TF_Code code, const std::exception& error) {
    TF_Status* status = TF_NewStatus();
    TF_SetStatus(status, code, error.what());
    TF_OpKernelContext_Failure(context, status);
    TF_DeleteStatus(status);
  };
  try {
    Run<gradient>(*static_cast<Options*>(options), context);
  } catch (const std::invalid_argument& error) {
    fail(TF_INVALID_ARGUMENT, error);
  } catch (const std::exception& error) {
    fail(TF_INTERNAL, error);
  }
}

// Once for each op of a graph: reads its attributes.
void* Create(TF_OpKernelConstruction* op) {
  auto* options = new Options;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrFloat(op, "epsilon", &options->epsilon, status);
  TF_OpKernelConstruction_GetAttrInt64(op, "threads", &options->threads, status);
  TF_DeleteStatus(status);
  return options;
}

void Delete(void* options) { delete static_cast<Options*>(options); }

// An output has the shape of the input of the same number.
template <bool gradient>
void InferShapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  for (int i = 0; i < (gradient ? 2 : 1) && TF_GetCode(status) == TF_OK; ++i) {
    TF_ShapeInferenceContextGetInput(context, i, shape, status);
    TF_ShapeInferenceContextSetOutput(context, i, shape, status);
  }
  TF_DeleteShapeHandle(shape);
}

template <bool gradient>
void Register(const char* name, const std::vector<const char*>& inputs,
              const std::vector<const char*>& outputs) {
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name);
  for (const char* input : inputs) TF_OpDefinitionBuilderAddInput(op, input);
  for (const char* output : outputs) TF_OpDefinitionBuilderAddOutput(op, output);
  TF_OpDefinitionBuilderAddAttr(op, "epsilon: float");
  TF_OpDefinitionBuilderAddAttr(op, "threads: int");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, InferShapes<gradient>);
  auto* kernel = TF_NewKernelBuilder(name, "CPU", Create, Compute<gradient>, Delete);
  TF_Status* status = TF_NewStatus();
  TF_RegisterOpDefinition(op, status);
  if (TF_GetCode(status) == TF_OK) TF_RegisterKernelBuilder(name, kernel, status);
  if (TF_GetCode(status) != TF_OK) std::fprintf(stderr, "%s\n", TF_Message(status));
  TF_DeleteStatus(status);
}

// Runs while tf.load_op_library loads the library.
const bool registered = [] {
  Register<false>("OwnOpRmsNorm", {"x: float", "scale: float"}, {"y: float"});
  Register<true>("OwnOpRmsNormGrad", {"x: float", "scale: float", "dy: float"},
                 {"dx: float", "dscale: float"});
  return true;
}();

}  // namespace
