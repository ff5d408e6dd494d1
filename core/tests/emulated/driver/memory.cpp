// The device's memory: pages of its own for each piece, so that what is read or written behind its end, or after it was
// given back, stops the program.
#include "device.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace device {
namespace {

constexpr size_t PAGE = 4096;
// Where pieces begin, as a device's do.
constexpr size_t ALIGNMENT = 256;

struct Piece {
    char* pages;
    size_t mapped, size;
};

std::mutex lock;
std::map<uintptr_t, Piece>& pieces() {
    static std::map<uintptr_t, Piece> all;
    return all;
}
size_t used, peak;

size_t up(size_t size, size_t to) { return (size + to - 1) / to * to; }

} // namespace

void fail(const char* what, ...) {
    va_list values;
    va_start(values, what);
    fputs("emulated device: ", stderr);
    vfprintf(stderr, what, values);
    fputc('\n', stderr);
    abort();
}

void record(const char* what, ...) {
    static FILE* file = [] {
        const char* path = getenv("TAGBRUSH_EMULATED_LOG");
        return path ? fopen(path, "w") : nullptr;
    }();
    if (!file) return;
    std::lock_guard<std::mutex> held(lock);
    va_list values;
    va_start(values, what);
    vfprintf(file, what, values);
    fputc('\n', file);
    fflush(file);
}

size_t total() {
    static const size_t bytes = [] {
        const char* megabytes = getenv("TAGBRUSH_EMULATED_MEMORY");
        return (megabytes ? strtoull(megabytes, nullptr, 10) : 2048) << 20;
    }();
    return bytes;
}

void usage(size_t& now, size_t& most, bool forget) {
    std::lock_guard<std::mutex> held(lock);
    if (forget) peak = used;
    now = used, most = peak;
}

void* allocate(size_t size) {
    size_t room = up(size, ALIGNMENT), mapped = up(room, PAGE) + PAGE;
    std::lock_guard<std::mutex> held(lock);
    if (used + room > total()) return nullptr;
    void* pages = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(static_cast<char*>(pages) + mapped - PAGE, PAGE, PROT_NONE)) return nullptr;
    char* start = static_cast<char*>(pages) + mapped - PAGE - room;
    memset(start, 0xff, room);
    pieces()[uintptr_t(start)] = {static_cast<char*>(pages), mapped, size};
    used += room;
    if (used > peak) peak = used;
    return start;
}

bool give_back(void* memory) {
    std::lock_guard<std::mutex> held(lock);
    auto found = pieces().find(uintptr_t(memory));
    if (found == pieces().end()) return false;
    const Piece& piece = found->second;
    size_t room = up(piece.size, ALIGNMENT);
    for (size_t i = piece.size; i < room; i++) {
        if (static_cast<unsigned char*>(memory)[i] != 0xff) fail("a write behind the end of %zu bytes", piece.size);
    }
    munmap(piece.pages, piece.mapped);
    used -= room;
    pieces().erase(found);
    return true;
}

void check(const void* memory, size_t size, const char* what) {
    if (size == 0) return;
    std::lock_guard<std::mutex> held(lock);
    auto found = pieces().upper_bound(uintptr_t(memory));
    if (found == pieces().begin()) fail("%s: %p is not the device's", what, memory);
    --found;
    if (uintptr_t(memory) - found->first + size > found->second.size) {
        fail("%s: %zu bytes from %p on are not all the device's", what, size, memory);
    }
}

} // namespace device
