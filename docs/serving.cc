// A program that runs an exported model with hw3tf's ops, through TensorFlow's
// C API.
//
//   serving LIBRARY MODEL INPUT OUTPUT 2,9,8 < floats > floats
//
// LIBRARY is what `python -m hw3tf --op-library` prints, MODEL a folder that
// `model.export` wrote. INPUT and OUTPUT are operations of its signature, which
// `saved_model_cli show --all --dir MODEL` names. Reads one float32 tensor of
// the given shape, in the machine's byte order, and writes the output likewise.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tensorflow/c/c_api.h"

namespace {

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "serving: %s\n", what.c_str());
  std::exit(1);
}

void Check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK)
    Fail(std::string(what) + ": " + TF_Message(status));
}

std::vector<int64_t> ParseShape(const std::string& text) {
  std::vector<int64_t> shape;
  std::stringstream stream(text);
  for (std::string size; std::getline(stream, size, ',');)
    shape.push_back(std::stoll(size));
  return shape;
}

TF_Output Find(TF_Graph* graph, const char* name) {
  TF_Operation* found = TF_GraphOperationByName(graph, name);
  if (found == nullptr) Fail("the model has no operation " + std::string(name));
  return {found, 0};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) Fail("LIBRARY MODEL INPUT OUTPUT SHAPE, please");
  const std::unique_ptr<TF_Status, decltype(&TF_DeleteStatus)> owner(
      TF_NewStatus(), &TF_DeleteStatus);
  TF_Status* status = owner.get();

  // Before the model: from here on TensorFlow knows the ops.
  TF_LoadLibrary(argv[1], status);
  Check(status, "the library");

  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tag = "serve";
  TF_Session* session = TF_LoadSessionFromSavedModel(
      options, nullptr, argv[2], &tag, 1, graph, nullptr, status);
  Check(status, "the model");

  const std::vector<int64_t> shape = ParseShape(argv[5]);
  size_t size = sizeof(float);
  for (const int64_t axis : shape) size *= static_cast<size_t>(axis);
  TF_Tensor* input = TF_AllocateTensor(TF_FLOAT, shape.data(),
                                       static_cast<int>(shape.size()), size);
  if (std::fread(TF_TensorData(input), 1, size, stdin) != size)
    Fail("fewer floats than the shape has");

  const TF_Output from = Find(graph, argv[3]), to = Find(graph, argv[4]);
  TF_Tensor* output = nullptr;
  TF_SessionRun(session, nullptr, &from, &input, 1, &to, &output, 1, nullptr, 0,
                nullptr, status);
  Check(status, "the call");
  std::fwrite(TF_TensorData(output), 1, TF_TensorByteSize(output), stdout);

  TF_DeleteTensor(input);
  TF_DeleteTensor(output);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
}
