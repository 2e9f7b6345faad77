// Attributes of an op under construction.

#pragma once

#include <cstdint>
#include <string>

#include "tensorflow/op_support.h"

namespace hw3tf {

// Nothing more is read after a failure, which is reported at the end.
class Attributes {
 public:
  explicit Attributes(TF_OpKernelConstruction* construction)
      : construction_(construction), status_(NewStatus()) {}
  ~Attributes() {
    if (!Ok()) TF_OpKernelConstruction_Failure(construction_, status_.get());
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  bool Ok() const { return hw3tf::Ok(status_); }
  void Require(const std::string& error) {
    if (Ok() && !error.empty())
      TF_SetStatus(status_.get(), TF_INVALID_ARGUMENT, error.c_str());
  }

  TF_DataType Type(const char* name) {
    TF_DataType type = TF_INT32;
    if (Ok())
      TF_OpKernelConstruction_GetAttrType(construction_, name, &type,
                                          status_.get());
    return type;
  }
  bool Bool(const char* name) {
    TF_Bool value = 0;
    if (Ok())
      TF_OpKernelConstruction_GetAttrBool(construction_, name, &value,
                                          status_.get());
    return value != 0;
  }
  int64_t Int(const char* name) {
    int64_t value = 0;
    if (Ok())
      TF_OpKernelConstruction_GetAttrInt64(construction_, name, &value,
                                           status_.get());
    return value;
  }
  std::string String(const char* name) {
    int32_t list_size = 0, size = 0;
    if (Ok())
      TF_OpKernelConstruction_GetAttrSize(construction_, name, &list_size,
                                          &size, status_.get());
    std::string value(Ok() ? static_cast<size_t>(size) : 0, '\0');
    if (Ok())
      TF_OpKernelConstruction_GetAttrString(construction_, name, value.data(),
                                            value.size(), status_.get());
    return value;
  }

 private:
  TF_OpKernelConstruction* construction_;
  Status status_;
};

}  // namespace hw3tf
