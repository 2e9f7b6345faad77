#include "bindings/entry.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <new>

#include "bindings/arrays.h"
#include "bindings/signature.h"
#include "bindings/without_gil.h"
#include "kernels/runtime/parallel.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

// The arrays of a call, by the index of the operand.
using Arrays = std::array<std::optional<py::array>, kMostOperands>;

template <typename T>
T Loaded(const Signature& signature, const Parameter& parameter,
         py::handle passed) {
  py::detail::make_caster<T> caster;
  if (!caster.load(passed, /*convert=*/true))
    signature.Refuse("`" + std::string(parameter.name) + "` of the type " +
                     Py_TYPE(passed.ptr())->tp_name);
  return py::detail::cast_op<T>(std::move(caster));
}

Value ValueOf(const Signature& signature, const Parameter& parameter,
              const Attribute& attribute, py::handle passed) {
  switch (attribute.kind) {
    case Kind::kBool:
      return Integer(Loaded<bool>(signature, parameter, passed));
    case Kind::kNumber:
      return Number(Loaded<double>(signature, parameter, passed));
    case Kind::kWord: {
      Value value;
      Require(ParseWord(attribute,
                        Loaded<std::string>(signature, parameter, passed),
                        &value));
      return value;
    }
    default:
      return Integer(Loaded<int64_t>(signature, parameter, passed));
  }
}

// "float32, float64, float16 or bfloat16"
std::string NamesOf(const List<Element>& elements) {
  std::string names;
  for (int i = 0; i < elements.size(); ++i)
    names += (i == 0                    ? ""
              : i + 1 < elements.size() ? ", "
                                        : " or ") +
             std::string(Name(elements[i]));
  return names;
}

// The operands that decide upon types, then the types that follow from them,
// then all others. Raises TypeError: nothing is ever converted.
void ReadTypes(const Operation& operation, const Arrays& arrays, Call* call) {
  const auto decides = [&](const Operand& operand) {
    if (static_cast<int>(operand.type) >= kTypeParameters) return false;
    const char* by = ParameterOf(operation, operand.type).by;
    return by && std::strcmp(by, operand.name) == 0;
  };
  for (int i = 0; i < operation.operands.size(); ++i) {
    const Operand& operand = operation.operands[i];
    if (!decides(operand)) continue;
    const List<Element>& known = ParameterOf(operation, operand.type).elements;
    const std::optional<Element> element = ElementOf(*arrays[i]);
    bool is_known = false;
    for (Element one : known) is_known = is_known || element == one;
    if (!is_known)
      throw py::type_error(WrongDType(operand.name, "dtype " + NamesOf(known),
                                      NameOf(*arrays[i])));
    call->types[static_cast<int>(operand.type)] = *element;
  }
  for (const TypeParameter& type : operation.types)
    if (!type.by)
      call->types[static_cast<int>(type.type)] =
          type.derive(call->ElementOf(type.from));
  for (int i = 0; i < operation.operands.size(); ++i)
    if (arrays[i] &&
        ElementOf(*arrays[i]) != call->ElementOf(operation.operands[i].type))
      throw py::type_error(
          CheckElement(operation, call->types, i, NameOf(*arrays[i])));
  const std::string error = operation.check_types(call->types);
  if (!error.empty()) throw py::type_error(error);
}

// What is read before the call is checked: values of the arrays of positions.
void ReadShapes(const Operation& operation, const Arrays& arrays, Call* call) {
  for (int i = 0; i < operation.operands.size(); ++i) {
    if (!arrays[i]) continue;
    const Operand& operand = operation.operands[i];
    if (operand.Is(kPositions)) RequireContiguous(operand.name, *arrays[i]);
    Array& array = call->operands[i];
    array.given = true;
    array.dims = DimsOf(*arrays[i]);
    array.data = arrays[i]->data();
  }
}

// A gradient needs an element of its own for each of its operand: an axis that
// NumPy repeats with a stride of 0 is one of size 1 to the kernels.
bool NeedsItsElements(const Operation& operation, const Operand& operand) {
  if (!operand.Is(kBroadcasts)) return false;
  for (const Result& result : operation.results)
    if (result.like && std::strcmp(result.like, operand.name) == 0) return true;
  return false;
}

void ReadLayouts(const Operation& operation, Arrays* arrays, Call* call) {
  for (int i = 0; i < operation.operands.size(); ++i) {
    std::optional<py::array>& array = (*arrays)[i];
    const Operand& operand = operation.operands[i];
    if (!array || operand.Is(kPositions)) continue;
    Array& read = call->operands[i];
    if (operand.Is(kStrided) || operand.Is(kBroadcasts)) {
      read.strides = StridesOf(operand.name, *array, operand.Is(kStrided));
      if (!NeedsItsElements(operation, operand) || !IsRepeated(*array))
        continue;
      array = py::array::ensure(*array, py::array::c_style);
      if (!*array) throw py::error_already_set();
      read.data = array->data();
      read.strides = ContiguousStrides(read.dims);
    } else {
      RequireContiguous(operand.name, *array);
    }
  }
}

py::dtype DTypeOf(const Operation& operation, const Arrays& arrays,
                  const Call& call, Type type) {
  const bool chosen = static_cast<int>(type) < kTypeParameters;
  const char* by = chosen ? ParameterOf(operation, type).by : nullptr;
  if (by) return arrays[IndexIn(operation.operands, by)]->dtype();
  switch (call.ElementOf(type)) {
    case Element::kInt32:
      return py::dtype::of<int32_t>();
    case Element::kInt64:
      return py::dtype::of<int64_t>();
    case Element::kFloat64:
      return py::dtype::of<double>();
    default:
      return py::dtype::of<float>();
  }
}

void Run(const Call& call, const Output* outputs) {
  Outcome outcome;
  {
    // TensorFlow's and Python's other threads go on.
    const WithoutGil nogil;
    const OtherPoolScope pool;
    outcome = call.operation.run(call, outputs, /*threads=*/0);
  }
  if (outcome.ending == Ending::kOutOfMemory) throw std::bad_alloc();
  if (outcome.ending == Ending::kOverflow) {
    PyErr_SetString(PyExc_OverflowError, outcome.message.c_str());
    throw py::error_already_set();
  }
}

// The results: one array, or a tuple, with None for what is not given.
py::object RunWithResults(const Operation& operation, const Arrays& arrays,
                          const Call& call) {
  const int count = operation.results.size();
  py::tuple results(static_cast<size_t>(count));
  Output outputs[kMostResults];
  for (int i = 0; i < count; ++i) {
    py::object result = py::none();
    if (call.ResultGiven(i)) {
      outputs[i].dims = call.ResultDims(i);
      py::array array(
          DTypeOf(operation, arrays, call, operation.results[i].type),
          outputs[i].dims);
      outputs[i].data = array.mutable_data();
      result = std::move(array);
    }
    PyTuple_SET_ITEM(results.ptr(), i, result.release().ptr());
  }
  Run(call, outputs);
  if (count > 1) return std::move(results);
  return results[0];
}

py::object RunEntry(const Operation& operation, const Signature& signature,
                    const py::args& args, const py::kwargs& kwargs) {
  const std::vector<py::handle> passed = signature.Bind(args, kwargs);
  Call call(operation);
  Arrays arrays;
  for (size_t i = 0; i < passed.size(); ++i) {
    const Parameter& parameter = signature.parameters()[i];
    if (!passed[i]) continue;
    if (!parameter.is_operand)
      call.attributes[parameter.index] =
          ValueOf(signature, parameter, operation.attributes[parameter.index],
                  passed[i]);
    else if (py::isinstance<py::array>(passed[i]))
      arrays[parameter.index] = py::reinterpret_borrow<py::array>(passed[i]);
    else if (parameter.required || !passed[i].is_none())
      signature.Refuse("`" + std::string(parameter.name) + "` of the type " +
                       Py_TYPE(passed[i].ptr())->tp_name);
  }
  ReadTypes(operation, arrays, &call);
  ReadShapes(operation, arrays, &call);
  Require(operation.check(&call));
  ReadLayouts(operation, &arrays, &call);
  return RunWithResults(operation, arrays, call);
}

}  // namespace

void RegisterEntry(py::module_& m, const Operation& operation) {
  const auto signature = std::make_shared<const Signature>(operation);
  py::options options;
  options.disable_function_signatures();
  const std::string doc = signature->Text() + "\n\n" + operation.doc;
  m.def(
      operation.function,
      [&operation, signature](const py::args& args, const py::kwargs& kwargs) {
        return RunEntry(operation, *signature, args, kwargs);
      },
      doc.c_str());
}

}  // namespace hw3tf
