// The integer recurrence on NumPy arrays: check, allocate, release the GIL,
// call the kernel.

#include "kernels/recurrence/recurrence.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "checks/recurrence_checks.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

constexpr char kInputTypes[] = "dtype bool, int8, uint8, int16, int32 or int64";

IntDType RequireInteger(const char* name, const py::array& array,
                        const char* expected) {
  if (Is(array, 'b', 1)) return IntDType::kBool;
  if (Is(array, 'i', 1)) return IntDType::kInt8;
  if (Is(array, 'u', 1)) return IntDType::kUint8;
  if (Is(array, 'i', 2)) return IntDType::kInt16;
  if (Is(array, 'i', 4)) return IntDType::kInt32;
  if (Is(array, 'i', 8)) return IntDType::kInt64;
  throw py::type_error(WrongDType(name, expected, NameOf(array)));
}

void RequireSame(const char* name, const py::array& array, IntDType dtype) {
  const std::string expected = "dtype " + std::string(Name(dtype));
  if (RequireInteger(name, array, expected.c_str()) != dtype)
    throw py::type_error(WrongDType(name, expected, NameOf(array)));
}

struct DTypes {
  IntDType input, weight, state;
};

DTypes RequireDTypes(const py::array& inputs, const py::array& kernel,
                     const py::array& recurrent_kernel,
                     const OptionalArray& bias,
                     const OptionalArray& initial_state) {
  DTypes dtypes;
  dtypes.input = RequireInteger("inputs", inputs, kInputTypes);
  dtypes.weight = RequireInteger("recurrent_kernel", recurrent_kernel,
                                 "dtype int8, int32 or int64");
  dtypes.state =
      dtypes.weight == IntDType::kInt64 ? IntDType::kInt64 : IntDType::kInt32;
  if (dtypes.weight != dtypes.state && dtypes.weight != IntDType::kInt8)
    throw py::type_error(WrongDType("recurrent_kernel",
                                    "dtype int8, int32 or int64",
                                    NameOf(recurrent_kernel)));
  RequireSame("kernel", kernel, dtypes.weight);
  if (bias) RequireSame("bias", *bias, dtypes.state);
  if (initial_state) RequireSame("initial_state", *initial_state, dtypes.state);
  const std::string error =
      CheckRecurrenceDTypes(dtypes.input, dtypes.weight, dtypes.state);
  if (!error.empty()) throw py::type_error(error);
  return dtypes;
}

const void* MaybeData(const char* name, const OptionalArray& array) {
  return array ? ContiguousData(name, *array) : nullptr;
}

py::array EmptyStates(IntDType dtype, const Dims& dims) {
  if (dtype == IntDType::kInt64) return py::array_t<int64_t>(dims);
  return py::array_t<int32_t>(dims);
}

py::array IntegerRnn(const py::array& inputs, const py::array& kernel,
                     const py::array& recurrent_kernel,
                     const OptionalArray& bias,
                     const OptionalArray& initial_state,
                     const OptionalArray& mask, const std::string& activation,
                     int64_t clip_low, int64_t clip_high, bool reverse,
                     bool return_sequences, const std::string& overflow,
                     int fractional_bits) {
  const DTypes dtypes =
      RequireDTypes(inputs, kernel, recurrent_kernel, bias, initial_state);
  if (mask) RequireType("mask", *mask, 'b', 1, "bool");
  RecurrenceArgs args{};
  Require(ParseActivation(activation, &args.options));
  Require(ParseOverflow(overflow, &args.options));
  args.options.clip_low = clip_low;
  args.options.clip_high = clip_high;
  args.options.reverse = reverse;
  args.options.return_sequences = return_sequences;
  args.options.fractional_bits = fractional_bits;
  Require(CheckRecurrence(
      {dtypes.input, dtypes.weight, dtypes.state, DimsOf(inputs),
       DimsOf(kernel), DimsOf(recurrent_kernel), MaybeDims(bias),
       MaybeDims(initial_state), MaybeDims(mask)},
      args.options, &args.shape));
  args.input_dtype = dtypes.input;
  args.weight_dtype = dtypes.weight;
  args.state_dtype = dtypes.state;
  args.inputs = inputs.data();
  const Dims strides = StridesOf("inputs", inputs, true);
  args.input_batch_stride = strides[0];
  args.input_time_stride = strides[1];
  args.kernel = ContiguousData("kernel", kernel);
  args.recurrent_kernel = ContiguousData("recurrent_kernel", recurrent_kernel);
  args.bias = MaybeData("bias", bias);
  args.initial_state = MaybeData("initial_state", initial_state);
  args.mask = static_cast<const uint8_t*>(MaybeData("mask", mask));

  py::array output =
      EmptyStates(dtypes.state, OutputDims(args.shape, args.options));
  args.output = output.mutable_data();
  RecurrenceResult result;
  {
    const WithoutGil nogil;
    result = IntegerRecurrence(args, /*num_threads=*/0);
  }
  if (result.status == RecurrenceStatus::kOutOfMemory) throw std::bad_alloc();
  if (result.status == RecurrenceStatus::kOverflow) {
    PyErr_SetString(PyExc_OverflowError,
                    OverflowMessage(result, dtypes.state).c_str());
    throw py::error_already_set();
  }
  return output;
}

}  // namespace

void RegisterRecurrence(py::module_& m) {
  const auto array = [](const char* name) { return py::arg(name).noconvert(); };
  const auto optional = [](const char* name) {
    return py::arg(name).noconvert().none(true) = py::none();
  };
  m.def(
      "integer_rnn", &IntegerRnn, array("inputs"), array("kernel"),
      array("recurrent_kernel"), optional("bias"), optional("initial_state"),
      optional("mask"), py::kw_only(), py::arg("activation") = "none",
      py::arg("clip_low") = 0, py::arg("clip_high") = 0,
      py::arg("reverse") = false, py::arg("return_sequences") = false,
      py::arg("overflow") = "raise", py::arg("fractional_bits") = 0,
      "Returns the last state, (B, units), or all, (B, T, units); see\n"
      "csrc/kernels/recurrence/recurrence.h.\n\n"
      "inputs (B, T, F): bool, int8, uint8, int16, int32 or int64, contiguous\n"
      "along the last axis, no wider than the state. kernel (F, units) and\n"
      "recurrent_kernel (units, units): int64 for an int64 state, int32 or\n"
      "int8 for an int32 state. bias (units,) and initial_state (B, units): "
      "of\n"
      "the state's dtype. mask (B, T): bool. activation: 'none', 'relu',\n"
      "'sign' or 'clip'. overflow: 'raise', 'wrap' or 'saturate'.\n\n"
      "Nothing is converted. Raises TypeError on a wrong dtype, ValueError on\n"
      "a wrong shape or value, OverflowError if a state does not fit,\n"
      "MemoryError without memory.");
}

}  // namespace hw3tf
