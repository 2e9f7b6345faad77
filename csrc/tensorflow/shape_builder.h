// The vocabulary of shape functions.

#pragma once

#include <cstdint>

#include "tensorflow/op_support.h"

namespace hw3tf {

// Builds shapes from parts of others. After a failure nothing more happens.
class ShapeBuilder {
 public:
  ShapeBuilder(TF_ShapeInferenceContext* context, TF_Status* status)
      : context_(context), status_(status) {}

  bool Ok() const { return TF_GetCode(status_) == TF_OK; }

  ShapeHandle Input(int index) {
    ShapeHandle shape(TF_NewShapeHandle());
    if (Ok())
      TF_ShapeInferenceContextGetInput(context_, index, shape.get(), status_);
    return shape;
  }

  int64_t Rank(const ShapeHandle& shape) {  // -1: unknown
    if (!Ok() || !TF_ShapeInferenceContextRankKnown(context_, shape.get()))
      return -1;
    return TF_ShapeInferenceContextRank(context_, shape.get());
  }

  // Of a shape whose rank is known; -1: unknown.
  int64_t Size(const ShapeHandle& shape, int64_t axis) {
    if (!Ok()) return -1;
    const DimensionHandle size(TF_NewDimensionHandle());
    TF_ShapeInferenceContextDim(context_, shape.get(), axis, size.get());
    return TF_DimensionHandleValueKnown(size.get())
               ? TF_DimensionHandleValue(size.get())
               : -1;
  }

  // One axis of this size.
  ShapeHandle Vector(int size) {
    return ShapeHandle(TF_ShapeInferenceContextVectorFromSize(
        context_, static_cast<size_t>(size)));
  }

  // One axis of unknown size.
  ShapeHandle Unknown() {
    ShapeHandle axis(TF_NewShapeHandle());
    RequireRank(axis, 1);
    return axis;
  }

  // An unknown rank becomes this one, of unknown axes.
  void RequireRank(const ShapeHandle& shape, int64_t rank) {
    if (Ok())
      TF_ShapeInferenceContextWithRank(context_, shape.get(), rank, shape.get(),
                                       status_);
  }

  // Axes begin .. end - 1.
  ShapeHandle Axes(const ShapeHandle& shape, int64_t begin, int64_t end) {
    ShapeHandle part(TF_NewShapeHandle());
    if (Ok())
      TF_ShapeInferenceContextSubshape(context_, shape.get(), begin, end,
                                       part.get(), status_);
    return part;
  }

  ShapeHandle Join(const ShapeHandle& first, const ShapeHandle& second) {
    ShapeHandle both(TF_NewShapeHandle());
    if (Ok())
      TF_ShapeInferenceContextConcatenateShapes(
          context_, first.get(), second.get(), both.get(), status_);
    return both;
  }

  void Output(int index, const ShapeHandle& shape) {
    if (Ok())
      TF_ShapeInferenceContextSetOutput(context_, index, shape.get(), status_);
  }

 private:
  TF_ShapeInferenceContext* context_;
  TF_Status* status_;
};

}  // namespace hw3tf
