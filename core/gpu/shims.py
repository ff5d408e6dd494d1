"""Makes static libraries that stand in for NVIDIA's shared ones when a program is linked.

A program that is linked to libcuda.so.1 and the others does not start where they are not installed, even
if it is to use the CPU only. Here each of their functions is a few instructions that load the real library
when it is called first, and return the library's own code for "not there" if that fails. Libraries are
looked for in the folders of TAGBRUSH_CUDA_PATH (separated by colons), and then where the system does.

Usage: shims.py CUDARC FOLDER, with the sources of the crate cudarc, whose declarations name the functions.
Linux on x86-64 only.
"""

import re
import subprocess
import sys
from pathlib import Path

# Library: cudarc's module, names of the shared library from new to old, the code for "not there".
LIBRARIES = {
    "cuda": ("driver", ["libcuda.so.1"], 100),  # CUDA_ERROR_NO_DEVICE
    "cublas": ("cublas", ["libcublas.so.13"], 1),  # CUBLAS_STATUS_NOT_INITIALIZED
    "cublasLt": ("cublaslt", ["libcublasLt.so.13"], 1),
    "curand": ("curand", ["libcurand.so.10"], 101),  # CURAND_STATUS_NOT_INITIALIZED
    "nvrtc": ("nvrtc", ["libnvrtc.so.13"], 7),  # NVRTC_ERROR_BUILTIN_OPERATION_FAILURE
    "cudnn": ("cudnn", ["libcudnn.so.9"], 1001),  # CUDNN_STATUS_NOT_INITIALIZED
}

# Jumps to the real function where it is known already. Else all registers that arguments are passed in are
# kept while it is looked for.
FUNCTION = """.globl {name}
.type {name},@function
{name}:
    movq {table}+{offset}(%rip), %r11
    testq %r11, %r11
    jz 1f
    jmp *%r11
1:  pushq ${index}
    jmp {prefix}_first
.size {name}, .-{name}
"""

FIRST = """{prefix}_first:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rax
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    subq $136, %rsp
    andq $-16, %rsp
{save}
    movq 8(%rbp), %rdi
    call {prefix}_find
    movq %rax, %r11
{restore}
    leaq -56(%rbp), %rsp
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rax
    popq %rbp
    addq $8, %rsp
    jmp *%r11
.bss
.balign 8
.globl {table}
.hidden {table}
{table}: .skip {bytes}
.section .note.GNU-stack,"",@progbits
"""

FIND = """#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define HIDDEN __attribute__((visibility("hidden")))
extern void *{table}[] HIDDEN;
static const char *const names[] = {{{names}}};
static const char *const files[] = {{{files}}};
static int missing(void) {{ return {code}; }}
static void *load(void) {{
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {{
        const char *folders = getenv("TAGBRUSH_CUDA_PATH");
        while (folders && *folders) {{
            size_t length = strcspn(folders, ":");
            char path[4096];
            int n = snprintf(path, sizeof path, "%.*s/%s", (int)length, folders, files[k]);
            void *found = n > 0 && n < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
            if (found) return found;
            folders += length + (folders[length] == ':');
        }}
        void *found = dlopen(files[k], RTLD_NOW | RTLD_GLOBAL);
        if (found) return found;
    }}
    return NULL;
}}
HIDDEN void *{prefix}_find(long i) {{
    /* Two threads may both come here first: both find the same. */
    static void *library;
    if (!library) library = load();
    void *function = library ? dlsym(library, names[i]) : NULL;
    if (!function) return (void *)missing;
    return {table}[i] = function;
}}
"""


def functions(sources: Path) -> list[str]:
    text = "".join(path.read_text() for path in sorted(sources.glob("*.rs")))
    found = set(re.findall(r"pub (?:unsafe )?fn ((?:cu|nvrtc)\w+)\s*\(", text))
    return sorted(found - {"culib"})


def make(name: str, module: str, files: list[str], code: int, crate: Path, out: Path) -> int:
    names = functions(crate / "src" / module / "sys")
    if not names:
        sys.exit(f"no functions of {name} below {crate}")
    prefix, table = f"tagbrush_{name}", f"tagbrush_{name}_functions"
    registers = range(8)
    assembly = ".text\n" + "".join(
        FUNCTION.format(name=function, table=table, offset=8 * i, index=i, prefix=prefix)
        for i, function in enumerate(names)
    )
    assembly += FIRST.format(
        prefix=prefix,
        table=table,
        bytes=8 * len(names),
        save="\n".join(f"    movups %xmm{i}, {16 * i}(%rsp)" for i in registers),
        restore="\n".join(f"    movups {16 * i}(%rsp), %xmm{i}" for i in registers),
    )
    quoted = lambda texts: ", ".join(f'"{text}"' for text in texts)
    find = FIND.format(prefix=prefix, table=table, names=quoted(names), files=quoted(files), code=code)
    objects = []
    for suffix, text in ((".S", assembly), (".c", find)):
        source = out / f"{name}{suffix}"
        source.write_text(text)
        objects.append(out / f"{name}{suffix}.o")
        subprocess.run(["cc", "-O2", "-fPIC", "-c", source, "-o", objects[-1]], check=True)
    library = out / f"lib{name}.a"
    library.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", library, *objects], check=True)
    return len(names)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    crate, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, (module, files, code) in LIBRARIES.items():
        print(f"lib{name}.a: {make(name, module, files, code, crate, out)} functions")


if __name__ == "__main__":
    main()
