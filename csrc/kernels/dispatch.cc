#include "kernels/dispatch.h"

#include <cstdlib>

#include "kernels/attention_kernels.h"
#include "kernels/parallel.h"
#include "kernels/recurrence_kernels.h"

namespace hw3tf {
namespace {

std::vector<InstructionSet> FindInstructionSets() {
  std::vector<InstructionSet> sets;
  sets.push_back({"base", true, &kAttentionBase, &kRecurrenceBase});
#if defined(HW3TF_HAVE_X86)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  sets.push_back({"avx2", avx2, &kAttentionAvx2, &kRecurrenceAvx2});
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  sets.push_back({"avx512", avx512, &kAttentionAvx512, &kRecurrenceAvx512});
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  sets.push_back(
      {"avx512_vnni", vnni, &kAttentionAvx512, &kRecurrenceAvx512Vnni});
#endif
  return sets;
}

struct Choice {
  InstructionSet set;
  std::string error;
};

Choice Choose() {
  const char* wish = std::getenv("HW3TF_ISA");
  Choice choice{CompiledInstructionSets().front(), ""};
  bool found = false;
  std::string supported;
  for (const InstructionSet& set : CompiledInstructionSets()) {
    if (!set.supported) continue;
    supported += (supported.empty() ? "" : ", ") + std::string(set.name);
    if (!found) choice.set = set;  // the widest so far
    if (wish && std::string(wish) == set.name) found = true;
  }
  if (wish && *wish && !found)
    choice.error =
        "HW3TF_ISA must name an instruction set that was compiled "
        "and that this machine has: one of " +
        supported + ". Received: HW3TF_ISA=" + wish;
  return choice;
}

const Choice& TheChoice() {
  static const Choice choice = Choose();
  return choice;
}

}  // namespace

const std::vector<InstructionSet>& CompiledInstructionSets() {
  static const std::vector<InstructionSet> sets = FindInstructionSets();
  return sets;
}

const InstructionSet& ChosenInstructionSet() { return TheChoice().set; }

std::string EnvironmentError() {
  const std::string threads = NumThreadsError();
  return TheChoice().error.empty() ? threads : TheChoice().error;
}

}  // namespace hw3tf
