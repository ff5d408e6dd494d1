"""Tags 10,000 small images in nested folders, 50 broken ones among them; kills the run and resumes it.

Prints what was answered, the highest resident memory over the run, and that nothing was lost or done
twice. Needs Pillow and a release build:

    cargo build --release && python benches/folder_run.py [MODEL] [COUNT]
"""

import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from PIL import Image, ImageDraw

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = sys.argv[1] if len(sys.argv) > 1 else "demo"
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
BROKEN = 50


def draw(folder):
    """Images in folders three deep, and which of them are broken."""
    random.seed(1)
    broken = set(random.sample(range(COUNT), BROKEN))
    for i in range(COUNT):
        place = folder / f"{i % 7}" / f"{i % 11}" / f"{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        size = (random.randint(40, 160), random.randint(40, 160))
        image = Image.new("RGB", size, tuple(random.randint(0, 255) for _ in range(3)))
        ImageDraw.Draw(image).ellipse([8, 8, size[0] - 8, size[1] - 8], fill=tuple(random.randint(0, 255) for _ in range(3)))
        path = place / f"{i:05}.{'jpg' if i % 2 else 'png'}"
        image.save(path)
        if i in broken:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resident(pid):
    """The process's resident memory in MB."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0.0


def run(folder, out, *extra, kill_after=None):
    command = [ROOT / "target/release/tagbrush", "tag", folder, "-r", "-m", MODEL, "-f", "jsonl", "-o", out, *extra]
    start, memory = time.time(), []
    with open(out.parent / "log", "w") as log:
        process = subprocess.Popen(command, stderr=log)
        while process.poll() is None:
            memory.append(resident(process.pid))
            if kill_after and len((out / "tags.jsonl").read_bytes().splitlines() if (out / "tags.jsonl").exists() else []) > kill_after:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.05)
    memory = [m for m in memory if m > 0]
    half = len(memory) // 2
    print(f"exit {process.returncode}, {time.time() - start:.1f} s, resident MB: first half at most {max(memory[:half] or [0]):.0f}, second half at most {max(memory[half:] or [0]):.0f}")
    return [json.loads(line) for line in (out / "tags.jsonl").read_text().splitlines() if line.endswith("}")]


def main():
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        folder = temporary / "images"
        draw(folder)
        lines = run(folder, temporary / "whole")
        errors = [line for line in lines if "error" in line]
        assert len(lines) == COUNT and len(errors) == BROKEN, (len(lines), len(errors))
        listed = (temporary / "log").read_text()
        assert f"{BROKEN} images failed" in listed
        print(f"{len(lines)} answered, {len(errors)} of them failures, all listed")
        expected = {line["path"]: line for line in lines}
        killed = run(folder, temporary / "resumed", kill_after=COUNT // 3)
        resumed = run(folder, temporary / "resumed", "--skip-existing")
        done = {}
        for line in resumed:
            assert "error" in line or line["path"] not in done, "tagged twice"
            done[line["path"]] = line
        assert done == expected, "lost or different answers"
        print(f"killed after {len(killed)} answers, resumed: all {len(done)} there, none tagged twice")


if __name__ == "__main__":
    main()
