#include "tests/plugins/abi_header.inc"
