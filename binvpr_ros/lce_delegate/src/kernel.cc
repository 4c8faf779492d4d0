// SPDX-License-Identifier: Apache-2.0
#include "kernel.h"

#include "refusal.h"

namespace binvpr {
namespace {

constexpr const Kernel* kKernels[] = {  // best first
#if defined(__x86_64__)
    &kAvx512Kernel,
#if BINVPR_HAS_AVX_VNNI
    &kAvxVnniKernel,
#endif
    &kAvx2Kernel,
#elif defined(__aarch64__)
    &kNeonDotKernel,
    &kNeonKernel,
#endif
    &kPortableKernel,
};

}  // namespace

std::vector<const Kernel*> available_kernels() {
  std::vector<const Kernel*> available;
  for (const Kernel* kernel : kKernels) {
    if (kernel->runs_here()) available.push_back(kernel);
  }
  return available;
}

const Kernel& find_kernel(const std::string& name) {
  std::string names = "auto";
  for (const Kernel* kernel : available_kernels()) {
    if (name == "auto" || name == kernel->name) return *kernel;
    names += std::string(", ") + kernel->name;
  }
  throw Refusal("this processor has no kernel " + name + "; choose one of " + names);
}

}  // namespace binvpr
