// The types of operations on floating-point numbers: T, and the type in which
// they are summed.

#pragma once

#include <type_traits>

#include "operations/description.h"

namespace hw3tf {

inline constexpr Element kFloats[] = {Element::kFloat32, Element::kFloat64,
                                      Element::kFloat16, Element::kBfloat16};
inline constexpr Element kReals[] = {Element::kFloat32, Element::kFloat64};

constexpr Element RealOf(Element element) {
  return element == Element::kFloat64 ? Element::kFloat64 : Element::kFloat32;
}

// Sets `dtype` of a kernel's arguments, whatever its enumeration.
template <typename Args>
void PutDType(void* args, Element element) {
  auto& dtype = static_cast<Args*>(args)->dtype;
  using Enum = std::remove_reference_t<decltype(dtype)>;
  switch (element) {
    case Element::kFloat64:
      dtype = Enum::kFloat64;
      break;
    case Element::kFloat16:
      dtype = Enum::kFloat16;
      break;
    case Element::kBfloat16:
      dtype = Enum::kBfloat16;
      break;
    default:
      dtype = Enum::kFloat32;
  }
}

}  // namespace hw3tf
