// The Python function of an operation, as far as its table says what it is: its
// parameters, and what a call passes for them.

#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "operations/description.h"

namespace hw3tf {

// A parameter: an operand or an attribute, by its index in the table.
struct Parameter {
  const char* name;
  bool is_operand;
  int index;
  bool required;
  pybind11::object key;  // the name as a str, for a comparison by address
};

class Signature {
 public:
  explicit Signature(const Operation& operation);

  const std::vector<Parameter>& parameters() const { return parameters_; }

  // What a call passes, in the order of `parameters`; null where it passes
  // nothing. Raises TypeError for what Python itself would refuse.
  std::vector<pybind11::handle> Bind(const pybind11::args& args,
                                     const pybind11::kwargs& kwargs) const;

  // "attention_forward(query: numpy.ndarray, ...) -> tuple"
  std::string Text() const;

  // Raises the TypeError of pybind11 for a call that does not fit.
  [[noreturn]] void Refuse(const std::string& why) const;

 private:
  void Add(const char* name, bool is_operand, int index, bool required);
  int Find(pybind11::handle name) const;  // -1: not found

  const Operation& operation_;
  std::vector<Parameter> parameters_;
  size_t positional_ = 0;  // the others are passed by keyword
};

// The default of an attribute; None if it has none.
pybind11::object DefaultOf(const Attribute& attribute);
// "int", of Python.
const char* KindName(Kind kind);

}  // namespace hw3tf
