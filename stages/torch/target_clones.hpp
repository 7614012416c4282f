#pragma once

/// One compilation of a function for each instruction set that makes its loop faster, chosen at
/// load time. Sanitizers instrument the resolver, which runs before they are ready.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define GP_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define GP_CLONES
#endif
