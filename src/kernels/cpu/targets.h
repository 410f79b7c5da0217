// The targets that Highway compiles our vector kernels for: AVX3, AVX2 and its plain baseline, whatever the flags of
// the compiler. Comes before any header of Highway in sources that are compiled once per target.
#pragma once

#define HWY_DISABLED_TARGETS (~(HWY_SCALAR | HWY_EMU128 | HWY_AVX2 | HWY_AVX3))
#define HWY_COMPILE_ALL_ATTAINABLE
