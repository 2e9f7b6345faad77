#include "bindings/signature.h"

namespace py = pybind11;

namespace hw3tf {

Signature::Signature(const Operation& operation) : operation_(operation) {
  const List<Operand>& operands = operation.operands;
  const List<Attribute>& attributes = operation.attributes;
  const auto add_operands = [&](bool by_keyword) {
    for (int i = 0; i < operands.size(); ++i)
      if (operands[i].Is(kByKeyword) == by_keyword)
        Add(operands[i].name, true, i, !operands[i].Is(kOptional));
  };
  const auto add_attributes = [&](bool positional, bool required) {
    for (int i = 0; i < attributes.size(); ++i)
      if (attributes[i].carrier != Carrier::kNotRead &&
          attributes[i].positional == positional &&
          attributes[i].fallback.has_value() != required)
        Add(attributes[i].name, false, i, required);
  };
  add_operands(/*by_keyword=*/false);
  add_attributes(/*positional=*/true, /*required=*/false);
  positional_ = parameters_.size();
  add_attributes(/*positional=*/false, /*required=*/true);
  add_operands(/*by_keyword=*/true);
  add_attributes(/*positional=*/false, /*required=*/false);
}

void Signature::Add(const char* name, bool is_operand, int index,
                    bool required) {
  py::object key =
      py::reinterpret_steal<py::object>(PyUnicode_InternFromString(name));
  if (!key) throw py::error_already_set();
  parameters_.push_back({name, is_operand, index, required, std::move(key)});
}

int Signature::Find(py::handle name) const {
  const int count = static_cast<int>(parameters_.size());
  // Names in the source of a caller are interned.
  for (int i = 0; i < count; ++i)
    if (parameters_[static_cast<size_t>(i)].key.ptr() == name.ptr()) return i;
  for (int i = 0; i < count; ++i)
    if (PyUnicode_CompareWithASCIIString(
            name.ptr(), parameters_[static_cast<size_t>(i)].name) == 0)
      return i;
  return -1;
}

std::vector<py::handle> Signature::Bind(const py::args& args,
                                        const py::kwargs& kwargs) const {
  std::vector<py::handle> passed(parameters_.size());
  if (args.size() > positional_)
    Refuse(std::to_string(args.size()) + " positional arguments");
  for (size_t i = 0; i < args.size(); ++i)
    passed[i] = PyTuple_GET_ITEM(args.ptr(), static_cast<py::ssize_t>(i));
  PyObject *key, *value;
  for (Py_ssize_t at = 0; PyDict_Next(kwargs.ptr(), &at, &key, &value);) {
    const int i = Find(key);
    if (i < 0) Refuse("an unknown `" + std::string(py::str(key)) + "`");
    py::handle& place = passed[static_cast<size_t>(i)];
    if (place) Refuse("`" + std::string(py::str(key)) + "` twice");
    place = value;
  }
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].required && !passed[i])
      Refuse("no `" + std::string(parameters_[i].name) + "`");
  return passed;
}

std::string Signature::Text() const {
  std::string text = std::string(operation_.function) + "(";
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, is_operand, index, required, key] = parameters_[i];
    if (i > 0) text += ", ";
    if (i == positional_) text += "*, ";
    text += std::string(name) + ": ";
    if (is_operand) {
      text += required ? "numpy.ndarray" : "numpy.ndarray | None = None";
      continue;
    }
    const Attribute& attribute = operation_.attributes[index];
    text += KindName(attribute.kind);
    if (!required)
      text += " = " + std::string(py::str(py::repr(DefaultOf(attribute))));
  }
  return text +
         (operation_.results.size() > 1 ? ") -> tuple" : ") -> numpy.ndarray");
}

void Signature::Refuse(const std::string& why) const {
  throw py::type_error(std::string(operation_.function) +
                       "(): incompatible function arguments. The following "
                       "argument types are supported:\n    1. " +
                       Text() + "\n\nReceived: " + why);
}

py::object DefaultOf(const Attribute& attribute) {
  if (!attribute.fallback) return py::none();
  const Value& value = *attribute.fallback;
  switch (attribute.kind) {
    case Kind::kBool:
      return py::bool_(value.integer != 0);
    case Kind::kInt:
      return py::int_(value.integer);
    case Kind::kNumber:
      return py::float_(value.number);
    case Kind::kWord:
      return py::str(attribute.words[static_cast<int>(value.integer)]);
    case Kind::kIntList:
      break;
  }
  return py::list();
}

const char* KindName(Kind kind) {
  constexpr const char* kNames[] = {"bool", "int", "float", "str", "list[int]"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace hw3tf
