// What the parts of the stand-in for NVIDIA's libraries share: the device's memory, and a record of what was asked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace device {

// Stops the program: on a device the result would be anything.
[[noreturn]] void fail(const char* what, ...) __attribute__((format(printf, 1, 2)));

// Writes a line to the file that TAGBRUSH_EMULATED_LOG names, if it does.
void record(const char* what, ...) __attribute__((format(printf, 1, 2)));

// Memory that is there until it is given back, filled with NaN; null if there is not enough.
void* allocate(size_t size);
// False if it does not begin here.
bool give_back(void* memory);
// Fails unless `size` bytes from here on are a device's, and there.
void check(const void* memory, size_t size, const char* what);

} // namespace device
