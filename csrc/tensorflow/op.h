// Any operation as a TensorFlow op: the definition, the shape function and the
// kernel, from its table.

#pragma once

#include "operations/description.h"
#include "tensorflow/op_support.h"

namespace hw3tf {

// What the attributes of an op say, read once, and what the first run caches.
struct OpKernel {
  explicit OpKernel(const Operation& described) : operation(described) {}

  const Operation& operation;
  Element types[kTypeParameters] = {};
  Value attributes[kMostAttributes];
  SessionThreads threads;
};

// TensorFlow calls functions without a context; so the operation, and which of
// its two ops it is, are parameters of templates below.
OpKernel* CreateKernel(TF_OpKernelConstruction* construction,
                       const Operation& operation, bool suffixed);
void InferShapes(TF_ShapeInferenceContext* context, TF_Status* status,
                 const Operation& operation, bool suffixed);
void RunKernel(void* kernel, TF_OpKernelContext* context);
void DestroyKernel(void* kernel);

template <const Operation& kOperation, bool kSuffixed>
void* Create(TF_OpKernelConstruction* construction) {
  return CreateKernel(construction, kOperation, kSuffixed);
}

template <const Operation& kOperation, bool kSuffixed>
void Shape(TF_ShapeInferenceContext* context, TF_Status* status) {
  InferShapes(context, status, kOperation, kSuffixed);
}

// The definition, with callbacks.
OpRegistration Definition(const Operation& operation, bool suffixed);

template <const Operation& kOperation, bool kSuffixed = false>
bool RegisterOperation() {
  OpRegistration op = Definition(kOperation, kSuffixed);
  op.shape_function = Guarded<Shape<kOperation, kSuffixed>>;
  op.create = Guarded<Create<kOperation, kSuffixed>>;
  return RegisterOp(op);
}

// An input of an op, as the index of its operand says. Scalars and `numbers`
// follow the operands that a gradient shares with its operation.
int InputOf(const Operation& operation, int operand);

}  // namespace hw3tf
