// The fibers of `emulate.h`, and the kernels that run on them.
#define EMULATED
#include "cuda/kernels.cu"
#include "cuda/hopper.cu"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#if defined(__x86_64__)
// Keeps what a function must leave as it was on the old stack, whose end goes to `*from`, and goes on where
// the stack `to` was left.
extern "C" void tagbrush_switch(void** from, void* to);
asm(R"(
.text
.globl tagbrush_switch
tagbrush_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#else
#include <ucontext.h>
#endif

namespace emulated {

thread_local Thread* current;
thread_local dim3 block_index, block_size, grid_size;
thread_local unsigned char* shared_bytes;

namespace {

constexpr size_t STACK = 64 << 10;
constexpr size_t GUARD = 64;
constexpr unsigned LANES = 32;

struct Copy {
    void* to;
    const void* from;
    bool is_there;
};

// A place where a function was left, or one that begins.
#if defined(__x86_64__)
struct Context {
    void* stack;

    void begin(char* memory, size_t size, void (*run)()) {
        void** top = reinterpret_cast<void**>((uintptr_t(memory) + size) & ~uintptr_t(15));
        *--top = nullptr; // Nobody to return to; and the stack is where a call leaves it.
        *--top = reinterpret_cast<void*>(run);
        for (int i = 0; i < 6; i++) *--top = nullptr;
        stack = top;
    }
    void change_to(Context& other) { tagbrush_switch(&stack, other.stack); }
};
#else
struct Context {
    ucontext_t context;

    void begin(char* memory, size_t size, void (*run)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = memory;
        context.uc_stack.ss_size = size;
        context.uc_link = nullptr;
        makecontext(&context, run, 0);
    }
    void change_to(Context& other) { swapcontext(&context, &other.context); }
};
#endif

// A product of a warpgroup, of which a thread has a part. It is made when it is waited for.
struct Product {
    float* d;
    const unsigned* a; // null: `left` names it
    unsigned long long left, right;
    int columns;
    bool transposed, adds;
    unsigned group;
};

struct Fiber : Thread {
    Context context;
    std::unique_ptr<char[]> stack;
    std::vector<Copy> copies;
    std::vector<Product> products;
    unsigned groups = 0;
    bool is_done;
};

constexpr unsigned WARPGROUP = 4 * LANES;

// What the lanes of a warp hand to each other.
struct Warp {
    unsigned arrived = 0, generation = 0, lanes = 0;
    unsigned in[LANES][8];
    unsigned out[LANES][4];
};

struct Warpgroup {
    unsigned arrived = 0, generation = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<Warpgroup> warpgroups;
    Context back;
    Kernel kernel;
    const void* arguments;
    unsigned at, step, running, waiting, generation;
    // Whether threads met, and whether they may: if not, they run behind each other, until one would.
    bool have_met, may_meet;
    jmp_buf begin_anew;
};

thread_local Block block;
thread_local unsigned launches;

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

[[noreturn]] void fail(const char* what) {
    fprintf(stderr, "emulated kernel: %s\n", what);
    abort();
}

void meet() {
    if (!block.may_meet) longjmp(block.begin_anew, 1);
    block.have_met = true;
}

// To the next fiber that is not done.
void yield() {
    unsigned from = block.at, count = unsigned(block.fibers.size());
    do block.at = (block.at + block.step) % count;
    while (block.fibers[block.at].is_done);
    if (block.at == from) return;
    current = &block.fibers[block.at];
    block.fibers[from].context.change_to(block.fibers[block.at].context);
    current = &block.fibers[from];
}

void run_fiber() {
    block.kernel(block.arguments);
    Fiber& fiber = block.fibers[block.at];
    if (!fiber.copies.empty()) fail("a thread ends with copies that it did not wait for");
    if (!fiber.products.empty()) fail("a thread ends with products that it did not wait for");
    fiber.is_done = true;
    if (--block.running == 0) {
        if (block.waiting) fail("a barrier that not all threads reach");
        fiber.context.change_to(block.back);
    }
    yield();
}

// Runs `together` once all lanes of the warp have come with their values.
template <class F> Warp& collective(const unsigned* values, unsigned count, F together) {
    meet();
    Warp& warp = block.warps[block.at / LANES];
    memcpy(warp.in[block.at % LANES], values, 4 * count);
    unsigned generation = warp.generation;
    if (++warp.arrived == warp.lanes) {
        together(warp);
        warp.arrived = 0;
        warp.generation++;
    } else {
        unsigned turns = 0;
        while (warp.generation == generation) {
            if (++turns > 1000000) fail("a warp whose lanes do not come together");
            yield();
        }
    }
    return warp;
}

float low(unsigned x) { return number(x << 16); }
float high(unsigned x) { return number(x & 0xffff0000u); }

} // namespace

Entry::Entry(const char* name, Kernel kernel) { kernels()[name] = kernel; }

void barrier() {
    meet();
    unsigned generation = block.generation;
    if (++block.waiting == block.fibers.size()) {
        block.waiting = 0;
        block.generation++;
        return;
    }
    unsigned turns = 0;
    while (block.generation == generation) {
        if (++turns > 1000000 || block.running < block.fibers.size()) fail("a barrier that not all threads reach");
        yield();
    }
}

float exchange(float x, int mask) {
    unsigned lane = block.at % LANES, value = bits(x);
    Warp& warp = collective(&value, 1, [&](Warp& w) {
        for (unsigned i = 0; i < w.lanes; i++) w.out[i][0] = w.in[i ^ unsigned(mask)][0];
    });
    return number(warp.out[lane][0]);
}

void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    unsigned lane = block.at % LANES;
    unsigned values[6] = {a[0], a[1], a[2], a[3], b0, b1};
    Warp& warp = collective(values, 6, [&](Warp& w) {
        float left[16][16], right[16][8];
        for (unsigned i = 0; i < LANES; i++) {
            unsigned row = i / 4, column = i % 4 * 2;
            for (unsigned r = 0; r < 4; r++) {
                unsigned y = row + r % 2 * 8, x = column + r / 2 * 8;
                left[y][x] = low(w.in[i][r]), left[y][x + 1] = high(w.in[i][r]);
            }
            for (unsigned r = 0; r < 2; r++) {
                right[column + 8 * r][row] = low(w.in[i][4 + r]);
                right[column + 8 * r + 1][row] = high(w.in[i][4 + r]);
            }
        }
        for (unsigned i = 0; i < LANES; i++) {
            for (unsigned r = 0; r < 4; r++) {
                unsigned y = i / 4 + r / 2 * 8, x = i % 4 * 2 + r % 2;
                float sum = 0.0f;
                for (unsigned k = 0; k < 16; k++) sum += left[y][k] * right[k][x];
                w.out[i][r] = bits(sum);
            }
        }
    });
    for (unsigned r = 0; r < 4; r++) d[r] += number(warp.out[lane][r]);
}

void load_matrices(unsigned (&r)[4], const void* row, bool transposed) {
    if (uintptr_t(row) % 16) fail("a row of a matrix at an odd address");
    unsigned lane = block.at % LANES, values[2];
    memcpy(values, &row, 8);
    Warp& warp = collective(values, 2, [&](Warp& w) {
        const unsigned short* rows[LANES];
        for (unsigned i = 0; i < LANES; i++) memcpy(&rows[i], w.in[i], 8);
        for (unsigned i = 0; i < LANES; i++) {
            for (unsigned m = 0; m < 4; m++) {
                unsigned y = i / 4, x = i % 4 * 2;
                unsigned first = transposed ? rows[8 * m + x][y] : rows[8 * m + y][x];
                unsigned second = transposed ? rows[8 * m + x + 1][y] : rows[8 * m + y][x + 1];
                w.out[i][m] = first | second << 16;
            }
        }
    });
    memcpy(r, warp.out[lane], 16);
}

void copy_async(void* to, const void* from, bool is_there) {
    if (uintptr_t(to) % 16 || uintptr_t(from) % 16) fail("an asynchronous copy at an odd address");
    meet();
    block.fibers[block.at].copies.push_back({to, from, is_there});
}

void wait_for_copies() {
    for (const Copy& copy : block.fibers[block.at].copies) {
        if (copy.is_there) memcpy(copy.to, copy.from, 16);
        else memset(copy.to, 0, 16);
    }
    block.fibers[block.at].copies.clear();
}

void multiply_async(float* d, int columns, const unsigned* a, unsigned long long left, unsigned long long right, bool transposed,
                    bool adds) {
    meet();
    Fiber& fiber = block.fibers[block.at];
    fiber.products.push_back({d, a, left, right, columns, transposed, adds, fiber.groups});
}

void end_products() { block.fibers[block.at].groups++; }

// A value of a matrix in shared memory, by its description: rows run along the sum (`transposed`) or across it.
static float value_at(unsigned long long matrix, int outer, int inner, bool transposed) {
    if (matrix >> 62 != 1) fail("a matrix that is not in rows of 128 bytes, swapped");
    unsigned address = unsigned(matrix & 0x3fff) << 4;
    unsigned across = unsigned(matrix >> 16 & 0x3fff) << 4, down = unsigned(matrix >> 32 & 0x3fff) << 4;
    int row = transposed ? inner : outer, column = transposed ? outer : inner;
    address += unsigned(column) / 64 * across + unsigned(column) % 64 * 2 + unsigned(row) / 8 * down + unsigned(row) % 8 * 128;
    address ^= (address >> 7 & 7) << 4;
    unsigned short bits;
    memcpy(&bits, shared_bytes + address, 2);
    return number(unsigned(bits) << 16);
}

// The product number `i` of the warpgroup whose first thread is `first`.
static void multiply(unsigned first, size_t i) {
    const Product& product = block.fibers[first].products[i];
    float left[64][16], right[16][256];
    for (unsigned thread = 0; thread < WARPGROUP; thread++) {
        const Product& part = block.fibers[first + thread].products[i];
        if (part.left != product.left || part.right != product.right || part.columns != product.columns) {
            fail("a product whose threads do not agree");
        }
        unsigned lane = thread % LANES, row = thread / LANES * 16 + lane / 4, column = lane % 4 * 2;
        for (unsigned r = 0; r < 4 && part.a; r++) {
            unsigned y = row + r % 2 * 8, x = column + r / 2 * 8;
            left[y][x] = low(part.a[r]), left[y][x + 1] = high(part.a[r]);
        }
    }
    for (int y = 0; y < 64 && !product.a; y++) {
        for (int k = 0; k < 16; k++) left[y][k] = value_at(product.left, y, k, false);
    }
    for (int k = 0; k < 16; k++) {
        for (int x = 0; x < product.columns; x++) right[k][x] = value_at(product.right, x, k, product.transposed);
    }
    for (unsigned thread = 0; thread < WARPGROUP; thread++) {
        float* d = block.fibers[first + thread].products[i].d;
        unsigned lane = thread % LANES, row = thread / LANES * 16 + lane / 4, column = lane % 4 * 2;
        for (int j = 0; j < product.columns / 2; j++) {
            unsigned y = row + unsigned(j) / 2 % 2 * 8, x = unsigned(j) / 4 * 8 + column + unsigned(j) % 2;
            float sum = product.adds ? d[j] : 0.0f;
            for (int k = 0; k < 16; k++) sum += left[y][k] * right[k][x];
            d[j] = sum;
        }
    }
}

void wait_for_products(int unfinished) {
    meet();
    unsigned first = block.at / WARPGROUP * WARPGROUP;
    if (first + WARPGROUP > block.fibers.size()) fail("a product of less than four warps");
    Warpgroup& group = block.warpgroups[block.at / WARPGROUP];
    unsigned generation = group.generation;
    if (++group.arrived < WARPGROUP) {
        unsigned turns = 0;
        while (group.generation == generation) {
            if (++turns > 1000000) fail("a warpgroup whose threads do not come together");
            yield();
        }
        return;
    }
    const Fiber& one = block.fibers[first];
    size_t due = 0;
    while (due < one.products.size() && one.products[due].group + unfinished < one.groups) multiply(first, due++);
    for (unsigned i = first; i < first + WARPGROUP; i++) {
        auto& products = block.fibers[i].products;
        products.erase(products.begin(), products.begin() + ptrdiff_t(due));
    }
    group.arrived = 0;
    group.generation++;
}

Kernel find(const char* name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : found->second;
}

// Of the thread `i` of a block.
static dim3 index_of(unsigned i) {
    return {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
}

// Kernels whose threads met in some launch, and those whose threads did not so far. The latter run without fibers, which
// is many times as fast.
enum class Meets { UNKNOWN, YES, NOT_YET };
static std::mutex lock;
static std::map<Kernel, Meets>& habits() {
    static std::map<Kernel, Meets> all;
    return all;
}
static Meets habit(Kernel kernel) {
    std::lock_guard<std::mutex> held(lock);
    return habits()[kernel];
}
static void learn(Kernel kernel, bool met) {
    std::lock_guard<std::mutex> held(lock);
    Meets& known = habits()[kernel];
    if (known != Meets::YES) known = met ? Meets::YES : Meets::NOT_YET;
}

// The threads of a block, as fibers.
static void run_fibers(unsigned threads) {
    block.running = threads;
    block.waiting = block.generation = 0;
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = block.fibers[i];
        fiber.index = index_of(i);
        fiber.is_done = false;
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.context.begin(fiber.stack.get(), STACK, run_fiber);
    }
    block.at = block.step == 1 ? 0 : threads - 1;
    current = &block.fibers[block.at];
    block.back.change_to(block.fibers[block.at].context);
}

// The threads of a block, one behind the other; false once two of them would meet. What they wrote until then is written
// again: no kernel adds to what it met with.
static bool run_in_turn(unsigned threads) {
    Thread thread;
    if (setjmp(block.begin_anew)) return false;
    current = &thread;
    for (unsigned i = 0; i < threads; i++) {
        thread.index = index_of(block.step == 1 ? i : threads - 1 - i);
        block.kernel(block.arguments);
    }
    return true;
}

void run(Kernel kernel, dim3 grid, dim3 size, unsigned shared, const void* arguments) {
    unsigned threads = size.x * size.y * size.z;
    block.kernel = kernel;
    block.arguments = arguments;
    block.step = launches++ % 2 && threads > 1 ? threads - 1 : 1;
    block.may_meet = habit(kernel) != Meets::NOT_YET;
    block.have_met = false;
    grid_size = grid;
    block_size = size;
    if (block.fibers.size() < threads) block.fibers.resize(threads);
    std::vector<Fiber> spare;
    while (block.fibers.size() > threads) {
        spare.push_back(std::move(block.fibers.back()));
        block.fibers.pop_back();
    }
    block.warps.assign((threads + LANES - 1) / LANES, Warp());
    for (unsigned i = 0; i < threads; i++) block.warps[i / LANES].lanes++;
    block.warpgroups.assign((threads + WARPGROUP - 1) / WARPGROUP, Warpgroup());
    // Results that depend on memory which nobody wrote are NaN.
    std::unique_ptr<unsigned char[]> memory(new unsigned char[shared + GUARD + 16]);
    shared_bytes = memory.get() + (16 - uintptr_t(memory.get()) % 16) % 16;
    for (block_index.z = 0; block_index.z < grid.z; block_index.z++)
    for (block_index.y = 0; block_index.y < grid.y; block_index.y++)
    for (block_index.x = 0; block_index.x < grid.x; block_index.x++) {
        memset(shared_bytes, 0xff, shared);
        memset(shared_bytes + shared, 0x5a, GUARD);
        if (!block.may_meet) block.may_meet = !run_in_turn(threads);
        if (block.may_meet) run_fibers(threads);
        for (size_t i = 0; i < GUARD; i++) {
            if (shared_bytes[shared + i] != 0x5a) fail("a write behind the end of shared memory");
        }
    }
    if (block.may_meet) learn(kernel, block.have_met);
}

} // namespace emulated

// Runs a kernel over a grid; false if there is none of that name.
extern "C" bool tagbrush_emulate(const char* name, dim3 grid, dim3 size, unsigned shared, const void* arguments) {
    emulated::Kernel kernel = emulated::find(name);
    if (kernel) emulated::run(kernel, grid, size, shared, arguments);
    return kernel;
}
