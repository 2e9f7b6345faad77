// The descriptions of the operations, as Python reads them.

#include <pybind11/pybind11.h>

#include "bindings/bindings.h"
#include "bindings/entry.h"
#include "bindings/signature.h"
#include "operations/description.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

// ["B", "T", "N", "H"]
py::list AxesOf(const char* axes) { return py::str(axes).attr("split")(); }

py::dict TypesOf(const Operation& operation) {
  py::dict types;
  for (const TypeParameter& type : operation.types) {
    py::list elements;
    for (Element element : type.elements) elements.append(Name(element));
    types[type.name] = elements;
  }
  return types;
}

py::list OperandsOf(const Operation& operation) {
  py::list operands;
  for (const Operand& operand : operation.operands) {
    py::dict entry;
    entry["name"] = operand.name;
    entry["type"] = NameOf(operation, operand.type);
    entry["axes"] = AxesOf(operand.axes);
    entry["optional"] = operand.Is(kOptional);
    entry["gradient"] = operand.Is(kGradient);
    entry["broadcasts"] = operand.Is(kBroadcasts);
    entry["strided"] = operand.Is(kStrided);
    operands.append(entry);
  }
  return operands;
}

py::list AttributesOf(const Operation& operation) {
  constexpr const char* kCarriers[] = {"attribute", "numbers", "input",
                                       "op_name", "not_read"};
  py::list attributes;
  for (const Attribute& attribute : operation.attributes) {
    py::dict entry;
    entry["name"] = attribute.name;
    entry["kind"] = KindName(attribute.kind);
    entry["default"] = DefaultOf(attribute);
    entry["carrier"] = kCarriers[static_cast<int>(attribute.carrier)];
    py::list words;
    for (const char* word : attribute.words) words.append(word);
    entry["words"] = words;
    attributes.append(entry);
  }
  return attributes;
}

py::list ResultsOf(const Operation& operation) {
  py::list results;
  for (const Result& result : operation.results) {
    const char* axes = result.axes;
    if (result.like)
      axes = operation.operands[IndexIn(operation.operands, result.like)].axes;
    py::dict entry;
    entry["name"] = result.name;
    entry["type"] = NameOf(operation, result.type);
    entry["axes"] = AxesOf(axes);
    entry["like"] = result.like ? py::object(py::str(result.like)) : py::none();
    results.append(entry);
  }
  return results;
}

py::dict DescribeOperations() {
  py::dict all;
  for (const Operation* operation : Operations()) {
    py::dict entry;
    entry["types"] = TypesOf(*operation);
    entry["operands"] = OperandsOf(*operation);
    entry["attributes"] = AttributesOf(*operation);
    entry["results"] = ResultsOf(*operation);
    entry["op"] = operation->op;
    entry["target"] = operation->target;
    all[operation->name] = entry;
  }
  return all;
}

}  // namespace

void RegisterOperations(py::module_& m) {
  for (const Operation* operation : Operations()) RegisterEntry(m, *operation);
  m.def(
      "operations", &DescribeOperations,
      "The operations of this module, by name: a dict of `types`, the types\n"
      "that a call chooses; `operands`, `attributes` and `results`, lists in\n"
      "the order of the TensorFlow op; `op`, its name, and `target`, that of\n"
      "XLA's custom call. An axis in parentheses is there if the attribute\n"
      "with the carrier 'op_name' is true.");
}

}  // namespace hw3tf
