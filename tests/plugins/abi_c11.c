#define static_assert _Static_assert /* C11 spells it so without <assert.h> */
#include "tests/plugins/abi_header.inc"
