// The shape function of any operation: what its table says of axes.

#include <cstring>
#include <utility>

#include "tensorflow/op.h"
#include "tensorflow/shape_builder.h"

namespace hw3tf {
namespace {

bool IsLetter(char c) { return c >= 'A' && c <= 'Z'; }

// Whether operands do not tell the size of an axis.
bool IsComputed(const Operation& operation, char letter) {
  for (const Axis& axis : operation.axes)
    if (axis.letter == letter) return axis.computed;
  return false;
}

// The place of an axis among those of an operand; -1: it has no such axis.
int AxisOf(const Operand& operand, char letter) {
  const char* found = std::strchr(operand.axes, letter);
  return found ? static_cast<int>(found - operand.axes) / 2 : -1;
}

// The operand that tells the size of an axis of the results: the last one that
// is always given.
int SourceOf(const Operation& operation, char letter) {
  int source = 0;
  for (int i = 0; i < operation.operands.size(); ++i)
    if (!operation.operands[i].Is(kOptional) &&
        AxisOf(operation.operands[i], letter) >= 0)
      source = i;
  return source;
}

class Inference {
 public:
  Inference(TF_ShapeInferenceContext* context, TF_Status* status,
            const Operation& operation)
      : build_(context, status), operation_(operation) {
    for (int i = 0; i < operation.operands.size(); ++i)
      shapes_[i] = build_.Input(InputOf(operation, i));
  }

  // Returns false if not even the number of its axes is known.
  bool Output(int result, bool suffixed) {
    const auto& [name, type, axes, like, in_place, put, unless] =
        operation_.results[result];
    if (like) {
      const ShapeHandle& shape = shapes_[IndexIn(operation_.operands, like)];
      // An attribute, which shape functions do not see: the shape stays
      // unknown. But the gradient of an operand that is not given is as empty
      // as that.
      const bool is_empty =
          build_.Rank(shape) == 1 && build_.Size(shape, 0) == 0;
      if (!unless || is_empty) build_.Output(result, shape);
      return true;
    }
    if (!FindRank(axes)) return false;
    ShapeHandle shape;
    bool skip = false;
    for (const char* at = axes; *at; ++at) {
      if (*at == '(') skip = !suffixed;
      if (*at == ')') skip = false;
      const bool is_axis = IsLetter(*at) || (*at >= '0' && *at <= '9');
      if (skip || !is_axis || (packed_ && *at == 'B')) continue;
      ShapeHandle axis = AxisShape(*at);
      shape = shape ? build_.Join(shape, axis) : std::move(axis);
    }
    build_.Output(result, shape);
    return true;
  }

 private:
  // Where calls may be packed, the first rank that is known tells.
  bool FindRank(const char* axes) {
    if (operation_.packs) {
      int64_t rank = -1;
      ForSources(axes, [&](int source) {
        if (rank < 0) rank = build_.Rank(shapes_[source]);
      });
      if (rank < 0) return false;
      packed_ = rank == 3;
    }
    ForSources(axes, [&](int source) {
      const size_t letters = std::strlen(operation_.operands[source].axes);
      build_.RequireRank(
          shapes_[source],
          static_cast<int64_t>(letters + 1) / 2 - (packed_ ? 1 : 0));
    });
    return true;
  }

  template <typename Body>
  void ForSources(const char* axes, const Body& body) {
    for (const char* at = axes; *at; ++at)
      if (IsLetter(*at) && !(operation_.packs && *at == 'B') &&
          !IsComputed(operation_, *at))
        body(SourceOf(operation_, *at));
  }

  ShapeHandle AxisShape(char axis) {
    if (!IsLetter(axis)) return build_.Vector(axis - '0');
    if (IsComputed(operation_, axis)) return build_.Unknown();
    if (operation_.packs && axis == 'B') return BatchShape();
    const int source = SourceOf(operation_, axis);
    const int at =
        AxisOf(operation_.operands[source], axis) - (packed_ ? 1 : 0);
    return build_.Axes(shapes_[source], at, at + 1);
  }

  // The size that is not 1, of operands that share a batch.
  ShapeHandle BatchShape() {
    const ShapeHandle* first = nullptr;
    bool all_known = true;
    for (int i = 0; i < operation_.operands.size(); ++i) {
      const Operand& operand = operation_.operands[i];
      if (operand.Is(kOptional) || !operand.Is(kOneBatch)) continue;
      if (!first) first = &shapes_[i];
      const int64_t size =
          build_.Rank(shapes_[i]) < 1 ? -1 : build_.Size(shapes_[i], 0);
      if (size >= 0 && size != 1) return build_.Axes(shapes_[i], 0, 1);
      all_known = all_known && size == 1;
    }
    return all_known ? build_.Axes(*first, 0, 1) : build_.Unknown();
  }

  ShapeBuilder build_;
  const Operation& operation_;
  ShapeHandle shapes_[kMostOperands];
  bool packed_ = false;  // no axis B
};

}  // namespace

void InferShapes(TF_ShapeInferenceContext* context, TF_Status* status,
                 const Operation& operation, bool suffixed) {
  Inference inference(context, status, operation);
  // Of all results; those whose shapes are known are set one by one.
  TF_ShapeInferenceContextSetUnknownShape(context, status);
  for (int i = 0; i < operation.results.size(); ++i)
    if (!inference.Output(i, suffixed)) return;
}

}  // namespace hw3tf
