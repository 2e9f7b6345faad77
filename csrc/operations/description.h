// The description of an operation: its operands, attributes and results in one
// table, from which every front (NumPy, TensorFlow, XLA, JAX) registers the
// operation, reads a call, checks it and fills the arguments of the kernel.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "operations/array.h"

namespace hw3tf {

// A constant array of any length.
template <typename T>
class List {
 public:
  constexpr List() = default;
  template <size_t kSize>
  constexpr List(const T (&items)[kSize])
      : items_(items), size_(static_cast<int>(kSize)) {}
  template <size_t kSize>
  constexpr List(const std::array<T, kSize>& items)
      : items_(items.data()), size_(static_cast<int>(kSize)) {}
  constexpr int size() const { return size_; }
  constexpr const T* begin() const { return items_; }
  constexpr const T* end() const { return items_ + size_; }
  constexpr const T& operator[](int index) const { return items_[index]; }

 private:
  const T* items_ = nullptr;
  int size_ = 0;
};

// The type of an operand: one that the call chooses, or always the same.
enum class Type : uint8_t { kT, kReal, kWeight, kInput, kBool, kInt32, kInt64 };
constexpr int kTypeParameters = 4;  // those that a call chooses

// A type that the call chooses.
struct TypeParameter {
  Type type;
  const char* name;        // that of TensorFlow's attribute
  List<Element> elements;  // which it may be
  // The operand that decides; nullptr: `derive` tells, from another one.
  const char* by;
  Type from;
  Element (*derive)(Element from);
  // Of the error of an operand that has another type: ", as `query`".
  const char* as;
  void (*put)(void* args, Element element);  // into the kernel's arguments
};

// An axis: the letter by which operands and results name it.
struct Axis {
  char letter;
  const char* name;  // in errors
  // Whether its size follows from attributes, too: `check` sets it, and the
  // shape function of the op, which reads none, leaves it open.
  bool computed = false;
};

// What is true of an operand.
enum OperandTraits : uint32_t {
  kOptional = 1 << 0,
  kByKeyword = 1 << 1,   // Python takes it by its name only
  kGradient = 1 << 2,    // has a gradient
  kBroadcasts = 1 << 3,  // to its axes, by NumPy's rules
  // Of rows (length, heads, size): read through strides, all but the last axis.
  kStrided = 1 << 4,
  // Its values are positions, which a kernel would follow out of its arrays:
  // copied before they are checked, so that nobody changes them afterwards.
  kPositions = 1 << 5,
  kNotPacked = 1 << 6,  // packed calls do without it
  kOneBatch = 1 << 7,   // its axis B may be 1, and then serves every entry
};

struct Operand {
  const char* name;
  Type type;
  const char* axes;  // "B T N H"; "B+1" is one more than B
  uint32_t traits;
  void (*put)(void* args, const Array& array);

  constexpr bool Is(OperandTraits trait) const { return (traits & trait) != 0; }
};

enum class Kind : uint8_t { kBool, kInt, kNumber, kWord, kIntList };

// How TensorFlow carries an attribute. XLA carries all but kScalarInput and
// kNotRead as words of its header.
enum class Carrier : uint8_t {
  kAttribute,    // an attribute of the op
  kNumbers,      // an element of the input `numbers`, which float attributes,
                 // of 32 bits, could not replace
  kScalarInput,  // an input of its own, of no axes
  kOpName,       // another op, whose name goes on with `suffix`
  kNotRead,      // an attribute for Python alone
};

// The value of an attribute: `number` of a kNumber, else `integer`; a kWord is
// the index of its word.
struct Value {
  int64_t integer = 0;
  double number = 0;
};
constexpr Value Integer(int64_t integer) { return {integer, 0}; }
constexpr Value Number(double number) { return {0, number}; }

struct Attribute {
  const char* name;
  Kind kind;
  Carrier carrier;
  std::optional<Value> fallback;  // the default; none: it must be given
  void (*put)(void* args, const Value& value);
  List<const char*> words = {};
  const char* suffix = "";
  bool positional = false;  // Python takes it after the operands, too
};

struct Result {
  const char* name;
  Type type;
  // As of operands; those in parentheses, "B (T) U", are there if the attribute
  // with the carrier kOpName is true. nullptr: as the operand of `like`, and
  // given if that is.
  const char* axes;
  const char* like;
  // The operand in whose memory it may be, if its shape and type are the same.
  const char* in_place;
  void (*put)(void* args, const Dims& dims, void* data);
  // An attribute that says that it is not wanted: then it is as if the operand
  // of `like` was not given.
  const char* unless = nullptr;
};

// What came of a call.
enum class Ending { kDone, kOutOfMemory, kOverflow };
struct Outcome {
  Ending ending = Ending::kDone;
  std::string message;
};

struct Call;

struct Operation {
  const char* name;      // "attention", of hw3tf._core.operations()
  const char* function;  // of hw3tf._core
  const char* op;        // of TensorFlow
  const char* target;    // of XLA
  const char* title;     // in "out of memory for the scratch arrays of ..."
  const char* doc;
  // What XLA says where sizes depend on values.
  const char* unknown_sizes;
  List<TypeParameter> types;
  List<Axis> axes;
  List<Operand> operands;
  // Of TensorFlow's inputs, the scalars and `numbers` come after this many
  // operands: those that a gradient shares with its operation.
  int shared_operands;
  // A call without the axis B, whose lengths are in splits, is possible.
  bool packs;
  // `numbers` had this many elements at first; models saved then have no more.
  int least_numbers;
  List<Attribute> attributes;
  List<Result> results;

  // Whether the types of a call may meet: "" or what is wrong.
  std::string (*check_types)(const Element* types);
  // Sizes of the axes, and every rule: "" or what is wrong.
  std::string (*check)(Call* call);
  Outcome (*run)(const Call& call, const Output* outputs, int threads);
};

// The operations there are, in the order in which they are registered.
List<const Operation*> Operations();

constexpr int kMostOperands = 24, kMostAttributes = 16, kMostResults = 8;

// One call, as every front reads it: what stands at the index of an operand or
// of an attribute belongs to that of the table. The defaults are set.
struct Call {
  explicit Call(const Operation& described);

  const Operation& operation;
  Element types[kTypeParameters] = {};  // by Type
  Array operands[kMostOperands];
  Value attributes[kMostAttributes];

  // Set by `check`: the size of each axis, by its letter.
  struct Sizes {
    int64_t of[26] = {};
    int64_t& operator[](char letter) { return of[letter - 'A']; }
    int64_t operator[](char letter) const { return of[letter - 'A']; }
  } sizes;
  // Of a packed call, in which B and T are one axis of this size. `sizes` has
  // the number of sequences and the length of the longest.
  bool packed = false;
  int64_t rows = 0;

  Element ElementOf(Type type) const;
  // Of an operand or a result with these axes; `padded`: with all of them, also
  // in a packed call.
  Dims DimsOf(const char* axes, bool padded = false) const;
  Dims ResultDims(int result) const;
  bool ResultGiven(int result) const;
};

// What fronts and rules ask of a table.
template <typename Item>
constexpr int IndexIn(const List<Item>& items, const char* name) {
  for (int i = 0; i < items.size(); ++i) {
    const char *a = items[i].name, *b = name;
    while (*a && *a == *b) ++a, ++b;
    if (*a == *b) return i;
  }
  return -1;
}
const TypeParameter& ParameterOf(const Operation& operation, Type type);
// "T", or "int32" of a type that is always the same.
const char* NameOf(const Operation& operation, Type type);
// The attribute that tells which of two ops it is; -1: there is one op.
int OpNameAttribute(const Operation& operation);

// "'raise', 'wrap', 'saturate'"
std::string WordsOf(const Attribute& attribute);
// Sets the index of a word, or returns what is wrong.
std::string ParseWord(const Attribute& attribute, const std::string& received,
                      Value* value);

// The sentences that refuse an array, or "".
std::string CheckRank(const Call& call, int operand);
std::string CheckSizes(const Call& call, int operand);  // after `sizes` are set
std::string CheckElement(const Operation& operation, const Element* types,
                         int operand, const std::string& received);

Outcome OutOfMemory(const Operation& operation);

template <typename Item, size_t kFirst, size_t kSecond>
constexpr std::array<Item, kFirst + kSecond> Joined(
    const Item (&first)[kFirst], const Item (&second)[kSecond]) {
  std::array<Item, kFirst + kSecond> all{};
  for (size_t i = 0; i < kFirst; ++i) all[i] = first[i];
  for (size_t i = 0; i < kSecond; ++i) all[kFirst + i] = second[i];
  return all;
}

// What the compiler can say of a table: fronts rely on it.
constexpr bool IsWellFormed(const Operation& operation) {
  bool good = operation.operands.size() <= kMostOperands &&
              operation.attributes.size() <= kMostAttributes &&
              operation.results.size() <= kMostResults;
  const auto is_operand = [&](const char* name) {
    return !name || IndexIn(operation.operands, name) >= 0;
  };
  for (const TypeParameter& type : operation.types)
    good = good && is_operand(type.by) && (type.by || type.derive);
  for (const Attribute& attribute : operation.attributes) {
    good = good && (attribute.kind == Kind::kNumber) ==
                       (attribute.carrier == Carrier::kNumbers);
    if (attribute.carrier != Carrier::kNumbers)
      good = good && attribute.fallback.has_value();
  }
  for (const Result& result : operation.results)
    good =
        good && is_operand(result.like) && is_operand(result.in_place) &&
        (result.like || (result.axes && !result.unless)) &&
        (!result.unless || IndexIn(operation.attributes, result.unless) >= 0);
  return good;
}

}  // namespace hw3tf
