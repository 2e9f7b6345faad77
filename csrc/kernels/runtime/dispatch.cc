#include "kernels/runtime/dispatch.h"

#if defined(HW3TF_HAVE_X86)
#include <cpuid.h>
#endif

#include <cstdlib>

#include "kernels/attention/kernel_table.h"
#include "kernels/recurrence/kernel_table.h"
#include "kernels/rnn/kernel_table.h"
#include "kernels/runtime/parallel.h"

namespace hw3tf {
namespace {

#if defined(HW3TF_HAVE_X86)
// Clang before 19 refuses __builtin_cpu_supports("f16c").
bool SupportsF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

std::vector<InstructionSet> FindInstructionSets() {
  std::vector<InstructionSet> sets;
  const auto add = [&sets](const char* name, bool supported, bool preferred,
                           const AttentionKernels& attention,
                           const AttentionKernels* attention_bfloat16,
                           const RecurrenceKernels& recurrence,
                           const RnnKernels& rnn,
                           const RnnKernelsOf<float>* rnn_bfloat16 = nullptr) {
    sets.push_back({name, supported, preferred, &attention, attention_bfloat16,
                    &recurrence, &rnn, rnn_bfloat16});
  };
  add("base", true, true, kAttentionBase, nullptr, kRecurrenceBase, kRnnBase);
#if defined(HW3TF_HAVE_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma") && SupportsF16c();
  add("avx2", avx2, true, kAttentionAvx2, nullptr, kRecurrenceAvx2, kRnnAvx2);
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  add("avx512", avx512, true, kAttentionAvx512, nullptr, kRecurrenceAvx512,
      kRnnAvx512);
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  add("avx512_vnni", vnni, true, kAttentionAvx512, nullptr,
      kRecurrenceAvx512Vnni, kRnnAvx512);
#if defined(HW3TF_HAVE_AVX512_BF16)
  // vdpbf16ps does two multiply-adds in the time of one on a Zen 4, but takes
  // twice the time of one on a Sapphire Rapids (benchmarks/machine_peak.py: 236
  // against 118 GFLOP/s, and 102 against 217).
  const bool bfloat16 = vnni && __builtin_cpu_supports("avx512bf16");
  add("avx512_bf16", bfloat16, __builtin_cpu_is("amd") != 0, kAttentionAvx512,
      &kAttentionAvx512Bfloat16, kRecurrenceAvx512Vnni, kRnnAvx512,
      &kRnnAvx512Bfloat16);
#endif
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
    const bool wished = wish && std::string(wish) == set.name;
    if (wished || (!found && set.preferred)) choice.set = set;
    found = found || wished;
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
